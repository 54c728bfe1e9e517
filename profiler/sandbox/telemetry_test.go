package sandbox

import "fmt"

func subscribeBody(port int) string {
	return fmt.Sprintf(`{"schemaVersion":"2022-12-13","types":["platform","function","extension"],
		"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},
		"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:%d/"}}`, port)
}
