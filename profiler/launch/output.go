package launch

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// keptOutput bounds what is kept of a process's output, and the length of a line.
const keptOutput = 64 << 10

// output reads what a process prints, so that it never blocks, and keeps the end.
type output struct {
	from *os.File
	done chan struct{}

	mu   sync.Mutex
	tail []byte // at most twice keptOutput
}

func collect(from *os.File, line func([]byte), echo io.Writer) *output {
	o := &output{from: from, done: make(chan struct{})}
	go o.read(line, echo)
	return o
}

func (o *output) read(line func([]byte), echo io.Writer) {
	defer close(o.done)
	buffer := make([]byte, 32<<10)
	var partial []byte
	for {
		n, err := o.from.Read(buffer)
		data := buffer[:n]
		o.keep(data)
		if echo != nil {
			_, _ = echo.Write(data) // the subject must not suffer from a closed terminal
		}
		if line != nil {
			partial = lines(append(partial, data...), line)
		}
		if err != nil {
			if line != nil && len(partial) > 0 {
				line(partial)
			}
			return
		}
	}
}

// lines hands out the whole lines of data and returns what is left.
func lines(data []byte, line func([]byte)) []byte {
	for {
		i := bytes.IndexByte(data, '\n')
		switch {
		case i >= 0:
			line(data[:i])
			data = data[i+1:]
		case len(data) > keptOutput:
			line(data[:keptOutput])
			data = data[keptOutput:]
		default:
			return data
		}
	}
}

func (o *output) keep(data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, data...)
	if len(o.tail) > 2*keptOutput {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-keptOutput:]...)
	}
}

func (o *output) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.tail[max(0, len(o.tail)-keptOutput):])
}

func (o *output) close() {
	_ = o.from.Close()
	<-o.done
}
