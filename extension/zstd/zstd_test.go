package zstd

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// decoder is one that this package has no part in.
func decoder(t testing.TB) *zstd.Decoder {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// text is like what the extension sends: lines of JSON that resemble each other.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		line, _ := json.Marshal(map[string]any{
			"metric": fmt.Sprintf("orders.%d", r.IntN(50)), "type": 1 + r.IntN(2), "interval": 10,
			"points": []map[string]any{{"timestamp": 1700000000 + r.IntN(100), "value": r.Float64()}},
			"tags":   []string{"env:production", "functionname:orders", fmt.Sprintf("customer:%d", r.IntN(10000))},
		})
		b.Write(line)
		b.WriteByte(',')
	}
	return b.Bytes()[:n]
}

func random(n int, below uint32) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32N(below))
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	d := decoder(t)
	inputs := map[string][]byte{
		"nothing": nil, "a byte": {7}, "zeros": make([]byte, 1<<20), "one symbol": bytes.Repeat([]byte("a"), 1000),
		"no text": random(300000, 256), "text that does not repeat": random(300000, 100), "two symbols": random(100000, 2),
		"text and none": append(append(text(200000), random(200000, 256)...), text(200000)...),
		"skewed":        bytes.Map(func(r rune) rune { return 'a' + rune(20*(int(r)%97)/97*int(r)%97/97) }, random(70000, 97)),
		"accents":       []byte(strings.ReplaceAll(string(text(300000)), "orders", "beställningar – ordrar")),
		"long matches":  bytes.Repeat(random(70000, 256), 5),
	}
	for below := range uint32(257) {
		inputs[fmt.Sprint("bytes below ", below)] = random(1000, max(below, 1))
		skewed := random(5000, max(below, 1))
		for i := range skewed {
			skewed[i] = byte(int(skewed[i]) * i / len(skewed))
		}
		inputs[fmt.Sprint("skewed below ", below)] = skewed
	}
	for n := range 200 {
		inputs[fmt.Sprint("text of ", n)] = text(n)
	}
	for _, n := range []int{1023, 1024, 4095, 4096, 16383, 16384, maxBlock - 1, maxBlock, maxBlock + 1, 3 * maxBlock, 5 << 20} {
		inputs[fmt.Sprint("text of ", n)] = text(n)
		inputs[fmt.Sprint("letters of ", n)] = random(n, 128)
	}
	for name, in := range inputs {
		packed := Append([]byte("before"), in)
		out, err := d.DecodeAll(packed[len("before"):], nil)
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("%s: %d bytes became %d: %v", name, len(in), len(out), err)
		}
		if most := len(in) + 16 + 3*(len(in)/maxBlock+1); len(packed) > most {
			t.Errorf("%s: %d bytes take %d", name, len(in), len(packed))
		}
	}
}

// TestRatio: it is there to make bodies smaller, about as much as gzip does.
func TestRatio(t *testing.T) {
	in := text(1 << 20)
	var z bytes.Buffer
	g, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
	_, _ = g.Write(in)
	_ = g.Close()
	packed := len(Append(nil, in))
	t.Logf("1 MB: zstd %d, gzip -1 %d", packed, z.Len())
	if packed > z.Len()*11/10 {
		t.Errorf("1 MB becomes %d bytes, with gzip %d", packed, z.Len())
	}
}

func TestCodeLengths(t *testing.T) {
	fibonacci := make([]int, 40) // whose unbounded code has 39 bits
	fibonacci[0], fibonacci[1] = 1, 1
	for i := 2; i < len(fibonacci); i++ {
		fibonacci[i] = fibonacci[i-1] + fibonacci[i-2]
	}
	for _, counts := range [][]int{{1, 1}, {5, 0, 1, 1}, fibonacci, slicesOf(129)} {
		kraft := 0
		for s, n := range codeLengths(counts) {
			if (n == 0) != (counts[s] == 0) || n > maxCode {
				t.Errorf("%v: symbol %d has %d bits", counts, s, n)
			}
			if n > 0 {
				kraft += 1 << (maxCode - n)
			}
		}
		if kraft != 1<<maxCode {
			t.Errorf("%v: the code is not complete", counts)
		}
	}
	if got := fmt.Sprint(codeLengths([]int{8, 4, 2, 1, 1})); got != "[1 2 3 4 4]" {
		t.Error(got)
	}
}

func slicesOf(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = 1
	}
	return s
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte(strings.Repeat("abcd", 100)))
	f.Add(text(2000))
	d := decoder(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := d.DecodeAll(Append(nil, in), nil)
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("%d bytes became %d: %v", len(in), len(out), err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	in := text(256 << 10)
	var out []byte
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		out = Append(out[:0], in)
	}
}

func BenchmarkGzip(b *testing.B) {
	in := text(256 << 10)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		var z bytes.Buffer
		g, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
		_, _ = g.Write(in)
		_ = g.Close()
	}
}
