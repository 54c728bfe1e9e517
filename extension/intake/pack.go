package intake

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
)

// Encodings of bodies. Each intake is sent what its reference lists.
const (
	Gzip    = "gzip"
	Deflate = "deflate" // which HTTP defines as the zlib format
)

// Pack makes a request of a body.
func Pack(address, contentType, encoding string, body []byte) Request {
	var packed bytes.Buffer
	var z io.WriteCloser
	if encoding == Deflate {
		z, _ = zlib.NewWriterLevel(&packed, zlib.BestSpeed) // the level is known
	} else {
		z, _ = gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	}
	_, _ = z.Write(body) // into memory: never fails
	_ = z.Close()
	return Request{address, contentType, encoding, packed.Bytes()}
}
