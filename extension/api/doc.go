// Package api is the extension's client of the Lambda Extensions API
// (2020-01-01) and Telemetry API (2022-07-01). It is the first to speak in a
// cold start: everything before the response to Register delays the runtime,
// and the first Next ends the extension's part of INIT.
//
// It speaks HTTP/1.1 by itself on plain TCP connections instead of through
// net/http: the requests are few and known, and the first round trip of an
// http.Transport costs two goroutines and a good deal of code that a cold start
// would fault in. There is no proxy and no timeout besides the context's, since
// Next blocks for as long as the environment is frozen.
package api
