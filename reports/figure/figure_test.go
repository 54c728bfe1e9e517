package figure

import "testing"

func TestDuration(t *testing.T) {
	for ns, want := range map[float64]string{
		0: "0 ns", 1: "1 ns", 999: "999 ns", 1000: "1.000 µs", 18_420_113: "18.42 ms", 999_949: "999.9 µs",
		999_950: "1.000 ms", 9_999_500: "10.00 ms", 99_995_000: "100.0 ms", 2_500_000_000: "2.500 s", -1500: "−1.500 µs",
	} {
		if got := Duration(ns); got != want {
			t.Errorf("%v ns is %q, want %q", ns, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 7: "7", 1234567: "1,234,567", 0.04: "0.04", 31.52: "31.5", 1000.4: "1,000", -2000: "−2,000", -0.5: "−0.5",
	} {
		if got := Count(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for v, want := range map[float64]string{0: "0 B", 412: "412 B", 2048: "2.0 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB"} {
		if got := Bytes(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

func TestMinusAndZero(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Milliseconds(-1_200_000, 3), "−1.200"},
		{Milliseconds(-10, 3), "0.000"},
		{Percent(-1, 8), "−12.5 %"},
		{Percent(1, 0), "–"},
		{Shift(1_200_000, 10_000_000, "1.200"), "+1.200 (+12.0 %)"},
		{Shift(5, 0, "5"), "+5"},
		{P(0.0004), "p<0.001"},
		{P(0.0394), "p=0.039"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestClean(t *testing.T) {
	for s, want := range map[string]string{
		"a\tb\nc": "a b␊c", "\x1b[31m": "␛[31m", "\x7f": "␡", "\u202ex": "\ufffdx", "\xff": "\ufffd", "漢é": "漢é",
	} {
		if got := Clean(s); got != want {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{
		{"short", 10, "short"},
		{"/opt/extensions/initprof-extension", 20, "/opt/ex…of-extension"},
		{"abcdefghij", 5, "ab…ij"},
		{"abc", 1, "…"},
		{"abc", 0, ""},
		{"漢字漢字漢字", 7, "漢字…字"},
	} {
		got := Shorten(c.s, c.width)
		if Width(got) > c.width {
			t.Errorf("%q is wider than %d", got, c.width)
		}
		if got != c.want {
			t.Errorf("%q to %d is %q, want %q", c.s, c.width, got, c.want)
		}
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("/opt/漢字/x", 5)
	f.Fuzz(func(t *testing.T, s string, width int) {
		if width < 0 || width > 200 {
			t.Skip()
		}
		if got := Shorten(Clean(s), width); Width(got) > width {
			t.Errorf("%q is wider than %d", got, width)
		}
	})
}
