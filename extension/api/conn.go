package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Limits on what is read from the API. Lambda's answers have a few hundred
// bytes; the limits only keep a broken server from filling the memory.
const (
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 8 << 20
)

// response is an HTTP response, read completely.
type response struct {
	status     int
	identifier string // Lambda-Extension-Identifier
	eventID    string // Lambda-Extension-Event-Identifier
	body       []byte
	closing    bool // the server will close the connection
}

type conn struct {
	net.Conn
	in *bufio.Reader
}

// take returns an idle connection (reused), or dials one.
func (c *Client) take(ctx context.Context, fresh bool) (cn *conn, reused bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 && !fresh {
		cn = c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return cn, true, nil
	}
	c.mu.Unlock()
	nc, err := c.dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, false, err
	}
	return &conn{Conn: nc, in: bufio.NewReaderSize(nc, 2048)}, false, nil
}

func (c *Client) put(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = cn.Close()
		return
	}
	c.idle = append(c.idle, cn)
}

// do sends one request in one write and reads its response. A connection that
// the server had closed while it was idle is replaced once. sent, if any, is
// called once the request is written.
func (c *Client) do(ctx context.Context, method, path, header string, body []byte, sent func()) (*response, error) {
	b := make([]byte, 0, 256+len(header)+len(body))
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.address...)
	b = append(b, "\r\n"...)
	b = append(b, header...)
	if method != "GET" {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	b = append(b, body...)

	for attempt := 0; ; attempt++ {
		cn, reused, err := c.take(ctx, attempt > 0)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		resp, started, err := exchange(ctx, cn, b, sent)
		if err == nil {
			if resp.closing {
				_ = cn.Close()
			} else {
				c.put(cn)
			}
			return resp, nil
		}
		_ = cn.Close()
		if ctxErr := ctx.Err(); ctxErr != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, ctxErr)
		}
		if !reused || started || attempt > 0 {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
}

// exchange reports with started whether any byte of a response had arrived.
func exchange(ctx context.Context, cn *conn, request []byte, sent func()) (resp *response, started bool, err error) {
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _ = cn.SetDeadline(time.Unix(1, 0)) })
		defer func() {
			if !stop() && err == nil {
				resp.closing = true // its deadline may lie in the past now
			}
		}()
	}
	if _, err := cn.Write(request); err != nil {
		return nil, false, err
	}
	if sent != nil {
		sent()
	}
	if _, err := cn.in.Peek(1); err != nil {
		return nil, false, err
	}
	resp, err = readResponse(cn.in)
	return resp, true, err
}

var errMalformed = errors.New("malformed HTTP response")

func readResponse(in *bufio.Reader) (*response, error) {
	budget := maxHeaderBytes
	line, err := readLine(in, &budget)
	if err != nil {
		return nil, err
	}
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || line[8] != ' ' {
		return nil, errMalformed
	}
	status, err := strconv.Atoi(line[9:12])
	if err != nil || status < 100 {
		return nil, errMalformed
	}
	resp := &response{status: status, closing: line[7] == '0'}
	length, chunked := -1, false
	for {
		line, err := readLine(in, &budget)
		if err != nil {
			return nil, err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, errMalformed
		}
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			if length, err = strconv.Atoi(value); err != nil || length < 0 || length > maxBodyBytes {
				return nil, fmt.Errorf("%w: content length %q", errMalformed, value)
			}
		case strings.EqualFold(name, "Transfer-Encoding"):
			chunked = strings.EqualFold(value, "chunked")
		case strings.EqualFold(name, "Connection"):
			resp.closing = resp.closing || strings.EqualFold(value, "close")
		case strings.EqualFold(name, "Lambda-Extension-Identifier"):
			resp.identifier = value
		case strings.EqualFold(name, "Lambda-Extension-Event-Identifier"):
			resp.eventID = value
		}
	}
	switch {
	case status < 200 || status == 204 || status == 304:
	case chunked:
		resp.body, err = readChunks(in, &budget)
	case length >= 0:
		resp.body = make([]byte, length)
		_, err = io.ReadFull(in, resp.body)
	default:
		resp.closing = true
		resp.body, err = io.ReadAll(io.LimitReader(in, maxBodyBytes))
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func readChunks(in *bufio.Reader, budget *int) ([]byte, error) {
	var body []byte
	for {
		line, err := readLine(in, budget)
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 32)
		if err != nil || n > uint64(maxBodyBytes-len(body)) {
			return nil, fmt.Errorf("%w: chunk size %q", errMalformed, line)
		}
		if n == 0 {
			for { // trailers
				if line, err := readLine(in, budget); err != nil || line == "" {
					return body, err
				}
			}
		}
		body = append(body, make([]byte, n)...)
		if _, err := io.ReadFull(in, body[len(body)-int(n):]); err != nil {
			return nil, err
		}
		if line, err := readLine(in, budget); err != nil {
			return nil, err
		} else if line != "" {
			return nil, errMalformed
		}
	}
}

// readLine reads a line without its end, and takes its length off the budget.
func readLine(in *bufio.Reader, budget *int) (string, error) {
	var long []byte
	for {
		part, err := in.ReadSlice('\n')
		if *budget -= len(part); *budget < 0 {
			return "", fmt.Errorf("%w: header too long", errMalformed)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, part...)
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		if long != nil {
			part = append(long, part...)
		}
		part = part[:len(part)-1]
		if n := len(part); n > 0 && part[n-1] == '\r' {
			part = part[:n-1]
		}
		return string(part), nil
	}
}
