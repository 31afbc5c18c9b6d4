package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
)

// parsePages reads the templates: each page is the layout with its own content.
func parsePages(now func() time.Time) (map[string]*template.Template, error) {
	funcs := template.FuncMap{
		"name": nameOf, "text": textOf, "lines": linesOf, "short": short, "size": size, "count": count,
		"score": scoreOf, "coverage": coverageBar, "severitybar": severityBar, "percent": percent,
		"phrase": phrase, "statusbar": statusBar, "soundbar": soundBar, "span": spanOf, "skew": skewOf,
		"when": func(t any) moment { return momentOf(now(), t) },
		"zero": func(d predicate.Digest) bool { return d == predicate.ZeroDigest },
		"pair": func(a, b any) [2]any { return [2]any{a, b} },
	}
	layout, err := template.New("layout.html").Funcs(funcs).ParseFS(templateFiles, "templates/layout.html")
	if err != nil {
		return nil, fmt.Errorf("parse layout: %w", err)
	}
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("find templates: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" {
			continue
		}
		page, err := layout.Clone()
		if err == nil {
			page, err = page.ParseFS(templateFiles, file)
		}
		if err != nil {
			return nil, fmt.Errorf("parse template %s: %w", name, err)
		}
		pages[name] = page
	}
	return pages, nil
}

// skewOf says how far a clock is off, to the second.
func skewOf(seconds float64) string {
	d := time.Duration(math.Abs(seconds) * float64(time.Second)).Round(time.Second)
	switch {
	case d == 0:
		return "right"
	case seconds < 0:
		return d.String() + " behind"
	}
	return d.String() + " ahead"
}

// piece is a run of characters: as they are, or Escaped, when they do not print
// or would change how others are read.
type piece struct {
	Text    string
	Escaped bool
}

// maxMarks is how many combining marks may follow each other before the rest
// are shown escaped.
const maxMarks = 2

// textOf takes a string apart so that all of it can be seen: control and format
// characters (bidirectional overrides among them), white space other than the
// blank, private and unassigned characters, bytes that are not UTF-8, and heaps
// of combining marks are escaped.
func textOf(v any) []piece { return pieces(fmt.Sprint(v), false) }

// linesOf is textOf for text of ours with line breaks.
func linesOf(s string) []piece { return pieces(s, true) }

func pieces(s string, breaks bool) []piece {
	var out []piece
	add := func(text string, escaped bool) {
		if n := len(out); n > 0 && out[n-1].Escaped == escaped {
			out[n-1].Text += text
			return
		}
		out = append(out, piece{text, escaped})
	}
	marks, from := 0, 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		bad := r == utf8.RuneError && n <= 1 || !unicode.IsPrint(r) && (!breaks || r != '\n') || marks > maxMarks
		if bad {
			if from < i {
				add(s[from:i], false)
			}
			add(escape(r, s[i:i+n]), true)
			from = i + n
		}
		i += n
	}
	if from < len(s) {
		add(s[from:], false)
	}
	return out
}

func escape(r rune, raw string) string {
	switch {
	case r == utf8.RuneError && len(raw) <= 1:
		return fmt.Sprintf(`\x%02x`, raw)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// named is a name from outside: its pieces, or a keyed one in short.
type named struct {
	Keyed, Full string
	Pieces      []piece
}

// nameOf reads a name as rows hold it.
func nameOf(s string) named {
	n := predicate.Name{Keyed: s}
	if n.Validate() == nil {
		return named{Keyed: n.String() + "…", Full: s}
	}
	return named{Pieces: textOf(s)}
}

// short is a digest's first characters.
func short(d predicate.Digest) string {
	const shown = 12
	h := d.Hex()
	if len(h) > shown {
		h = h[:shown] + "…"
	}
	if d.Keyed() {
		return "keyed:" + h
	}
	return h
}

// size writes a number of bytes.
func size(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, unit := float64(n)/1024, 0
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for f >= 1023.95 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[unit]
}

// count writes a number with its thousands apart.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func scoreOf(f *float64) string { return strconv.FormatFloat(*f, 'f', 1, 64) }

// percent is a share, rounded down: only the whole is 100.
func percent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(math.Floor(1000*float64(part)/float64(whole))/10, 'f', 1, 64) + "%"
}

// segment is a part of a bar that is 100 wide.
type segment struct {
	Class string
	X, W  string
}

// leastWidth keeps the smallest part visible.
const leastWidth = 1.0

// bar divides 100 by the given shares, in their order.
func bar(classes []string, shares []uint64) []segment {
	widths := make([]float64, len(shares))
	var whole, sum float64
	for _, n := range shares {
		whole += float64(n)
	}
	for i, n := range shares {
		if n > 0 {
			widths[i] = max(100*float64(n)/whole, leastWidth)
			sum += widths[i]
		}
	}
	var out []segment
	var x float64
	for i, w := range widths {
		if w == 0 {
			continue
		}
		w *= 100 / sum
		out = append(out, segment{classes[i], number(x), number(w)})
		x += w
	}
	return out
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

// labelled is a bar and what it says in words.
type labelled struct {
	Segments []segment
	Label    string
}

func coverageBar(c serve.Coverage) labelled {
	b := labelled{Label: fmt.Sprintf("%s parsed, %s inert by structure, %s not read, of %s",
		size(c.BytesParsed), size(c.BytesInert), size(c.BytesUnread), size(c.BytesTotal))}
	b.Segments = bar([]string{"parsed", "inert", "unread"}, []uint64{c.BytesParsed, c.BytesInert, c.BytesUnread})
	if len(b.Segments) == 0 && !c.Complete {
		b.Segments = bar([]string{"unread"}, []uint64{1})
	}
	return b
}

func severityBar(c serve.SeverityCounts) labelled {
	return labelled{
		Label:    fmt.Sprintf("%d critical, %d high, %d medium, %d low, %d info", c.Critical, c.High, c.Medium, c.Low, c.Info),
		Segments: bar(severities, []uint64{c.Critical, c.High, c.Medium, c.Low, c.Info}),
	}
}

func statusBar(c serve.AgentCounts) labelled {
	return labelled{
		Label:    fmt.Sprintf("%d online, %d stale, %d silent, %d never heard of, %d revoked", c.Online, c.Stale, c.Silent, c.Never, c.Revoked),
		Segments: bar([]string{"online", "stale", "silent", "never", "revoked"}, []uint64{c.Online, c.Stale, c.Silent, c.Never, c.Revoked}),
	}
}

// soundBar shows how many agents have which trouble as their worst, and how many
// have none.
func soundBar(f serve.Fleet) labelled {
	c := f.Severities
	sound := f.Agents.Total - min(c.Total, f.Agents.Total)
	return labelled{
		Label:    fmt.Sprintf("%d critical, %d high, %d medium, %d low, %d info, nothing wrong with %d", c.Critical, c.High, c.Medium, c.Low, c.Info, sound),
		Segments: bar(append(slices.Clone(severities), "sound"), []uint64{c.Critical, c.High, c.Medium, c.Low, c.Info, sound}),
	}
}

// phrase writes a word of a vocabulary as people do.
func phrase(word string) string { return strings.ReplaceAll(word, "_", " ") }

// spanOf writes a number of seconds.
func spanOf(seconds uint64) string {
	switch {
	case seconds%3600 == 0:
		return fmt.Sprintf("%d h", seconds/3600)
	case seconds%60 == 0:
		return fmt.Sprintf("%d min", seconds/60)
	}
	return fmt.Sprintf("%d s", seconds)
}

// moment is a time for people and for programs.
type moment struct{ Text, Ago, Machine string }

func momentOf(now time.Time, v any) moment {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v
	case *time.Time:
		if v != nil {
			t = *v
		}
	case predicate.Time:
		t = v.Time()
	}
	if t.IsZero() {
		return moment{}
	}
	t = t.UTC()
	return moment{Text: t.Format("2006-01-02 15:04:05"), Ago: ago(now.Sub(t)), Machine: t.Format(time.RFC3339)}
}

func ago(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < -time.Minute:
		return "in the future"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/day)
}

// statementBody is the body of the page "statement".
type statementBody struct {
	serve.Statement
	Subject   predicate.Digest
	Pretty    string
	Signature string
	// VerifiedAt is when the signature was verified for this page.
	VerifiedAt time.Time
}

// statementOf takes an envelope that has been verified apart.
func statementOf(st serve.Statement) (statementBody, error) {
	b := statementBody{Statement: st}
	var envelope struct {
		Signatures []struct {
			Sig string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(st.Envelope, &envelope); err != nil {
		return b, fmt.Errorf("read envelope %s: %w", st.Digest, err)
	}
	if len(envelope.Signatures) == 1 {
		b.Signature = envelope.Signatures[0].Sig
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, st.Payload, "", "  "); err != nil {
		return b, fmt.Errorf("read payload %s: %w", st.Digest, err)
	}
	b.Pretty = pretty.String()
	if scan := scanOf(st); scan != nil {
		b.Subject = scan.Artifact.Digest
	}
	return b, nil
}
