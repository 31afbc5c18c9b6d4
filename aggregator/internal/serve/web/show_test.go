package web

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
)

func TestTextIsSeenWhole(t *testing.T) {
	for in, want := range map[string][]piece{
		"":                    nil,
		"models/a b.pkl":      {{"models/a b.pkl", false}},
		"a\u202egpj.exe":      {{"a", false}, {`\u202e`, true}, {"gpj.exe", false}},
		"\u2066x\u2069\u200b": {{`\u2066`, true}, {"x", false}, {`\u2069\u200b`, true}},
		"line\nfeed\x00\x1b":  {{"line", false}, {`\u000a`, true}, {"feed", false}, {`\u0000\u001b`, true}},
		"bad\xff\xfe":         {{"bad", false}, {`\xff\xfe`, true}},
		"\ufffd":              {{"\ufffd", false}},
		"\U000e0041":          {{`\U000e0041`, true}},
		"no\u00a0break":       {{"no", false}, {`\u00a0`, true}, {"break", false}},
		"e\u0301\u0301\u0301": {{"e\u0301\u0301", false}, {`\u0301`, true}},
		"модель 模型 עברית":     {{"модель 模型 עברית", false}},
	} {
		if diff := cmp.Diff(want, textOf(in)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
	if diff := cmp.Diff([]piece{{"a\nb", false}, {`\u0009`, true}}, linesOf("a\nb\t")); diff != "" {
		t.Error(diff)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"a\u202eb", "\xff\x00", "e\u0301\u0301\u0301\u0301", "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		shown := 0
		for _, p := range textOf(s) {
			for _, r := range p.Text {
				if !unicode.IsPrint(r) {
					t.Fatalf("%q shows %U", s, r)
				}
			}
			if !utf8.ValidString(p.Text) || p.Text == "" {
				t.Fatalf("%q has the piece %q", s, p.Text)
			}
			if !p.Escaped {
				shown += len(p.Text)
			}
		}
		if shown > len(s) {
			t.Fatalf("%q: %d bytes shown", s, shown)
		}
	})
}

func TestKeyedNamesAreShort(t *testing.T) {
	whole := "hmac-sha256:" + strings.Repeat("ab12", 16)
	if diff := cmp.Diff(named{Keyed: "keyed:ab12ab12ab12…", Full: whole}, nameOf(whole)); diff != "" {
		t.Error(diff)
	}
	// What only begins like one is a plain name, and shown as it is.
	odd := "hmac-sha256:<b>" + strings.Repeat("a", 61)
	if diff := cmp.Diff(named{Pieces: []piece{{odd, false}}}, nameOf(odd)); diff != "" {
		t.Error(diff)
	}
}

func TestFigures(t *testing.T) {
	for in, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := size(in); got != want {
			t.Errorf("size(%d) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(in); got != want {
			t.Errorf("count(%d) = %q, want %q", in, got, want)
		}
	}
	for _, c := range []struct {
		part, whole uint64
		want        string
	}{{0, 0, "–"}, {1, 3, "33.3%"}, {9999, 10000, "99.9%"}, {5, 5, "100.0%"}} {
		if got := percent(c.part, c.whole); got != c.want {
			t.Errorf("percent(%d, %d) = %q, want %q", c.part, c.whole, got, c.want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Hour: "in the future", time.Second: "just now", 3 * time.Minute: "3 min ago", 47 * time.Hour: "47 h ago", 72 * time.Hour: "3 days ago",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestBarsAreWhole(t *testing.T) {
	for _, c := range []serve.Coverage{
		{BytesTotal: 10, BytesParsed: 10}, {BytesTotal: 1 << 40, BytesParsed: 1, BytesInert: 1<<40 - 2, BytesUnread: 1},
		{BytesTotal: 3, BytesParsed: 1, BytesInert: 1, BytesUnread: 1}, {},
	} {
		var sum float64
		for _, s := range coverageBar(c).Segments {
			w, err := strconv.ParseFloat(s.W, 64)
			if err != nil || w < 0.9 {
				t.Errorf("%+v: segment %+v (%v)", c, s, err)
			}
			sum += w
		}
		if sum < 99.9 || sum > 100.1 {
			t.Errorf("%+v: the parts add up to %v", c, sum)
		}
	}
	if got := coverageBar(serve.Coverage{Complete: true}).Segments; len(got) != 0 {
		t.Errorf("an empty artifact, wholly looked at: %v", got)
	}
}

// FuzzNext holds that a login leads to no other site.
func FuzzNext(f *testing.F) {
	for _, s := range []string{"/artifacts?verdict=fail", "//evil.example/", `/\evil.example`, "https://evil.example", "javascript:alert(1)", "/\t/evil.example", "", "/%2f/x", "/a#b"} {
		f.Add(s)
	}
	base, err := url.Parse("https://cavra.example/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got := local(next)
		u, err := base.Parse(got)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\t\r\n") {
			t.Errorf("%q leads to %q (%v)", next, got, err)
		}
	})
}

func TestLocalKeepsOurPaths(t *testing.T) {
	for in, want := range map[string]string{"/artifacts?verdict=fail": "/artifacts?verdict=fail", "//x": "/", "http://x/": "/", "x": "/", "": "/"} {
		if got := local(in); got != want {
			t.Errorf("local(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestShortDigest: a keyed digest is not shown as if it were of the bytes.
func TestShortDigest(t *testing.T) {
	plain := predicate.DigestOf([]byte("x"))
	keyed := predicate.KeyedDigest([]byte("k"), plain)
	for d, want := range map[predicate.Digest]string{plain: plain.Hex()[:12] + "…", keyed: "keyed:" + keyed.Hex()[:12] + "…", "": ""} {
		if got := short(d); got != want {
			t.Errorf("%s is shown as %s, want %s", d, got, want)
		}
	}
}
