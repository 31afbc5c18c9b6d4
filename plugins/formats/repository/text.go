package repository

import (
	"strconv"
	"strings"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// CheckText judges settings that are no JSON: YAML, or what is close to it. It
// reads no whole grammar but every key, in block and flow style, plain and
// quoted, and the value beside it; a value that is elsewhere (an alias, the next
// line) is a target that is not known. It reports whether there is anything that
// it could not judge.
func CheckText(v *content.Visit, src string, dangerous Judge) (complete bool) {
	s := newScalars(src)
	complete = true
	var called calls
	for s.next() {
		at := int64(s.at)
		if tag, ok := pythonTag(s.tag); ok {
			v.Found(ruleTag, ID, at, clean(tag))
		}
		if !s.isKey {
			continue
		}
		switch key := s.resolved(); key {
		case "auto_map", "auto_mapping", "custom_pipeline", "custom_pipelines", "_target_", "loader_module":
			value := s.value()
			if key == "auto_mapping" || value == "" {
				v.Found(ruleTarget, ID, at, key)
				continue
			}
			setting(v, key, &document.Node{Kind: strictjson.String, Text: value}, dangerous, at)
		case "chat_template":
			complete = false
		case "params":
			called.params = true
		case "target":
			called.add(s.value(), at)
		}
	}
	called.judge(v, dangerous)
	return complete
}

// calls are the targets in a text, which are called where it has params as well.
type calls struct {
	params  bool
	targets []*document.Node
}

func (c *calls) add(path string, at int64) {
	if len(c.targets) < maxRefs && classPath.MatchString(path) {
		c.targets = append(c.targets, &document.Node{Text: path, At: int(at)})
	}
}

func (c *calls) judge(v *content.Visit, dangerous Judge) {
	if !c.params {
		return
	}
	for _, t := range c.targets {
		dotted(v, t.Text, dangerous, int64(t.At))
	}
}

// pythonTag returns what a YAML tag names that Python's loader would construct.
func pythonTag(tag string) (string, bool) {
	for _, mark := range []string{"!!python/", "!python/", "yaml.org,2002:python/"} {
		if _, rest, ok := strings.Cut(tag, mark); ok {
			switch kind, _, _ := strings.Cut(rest, ":"); strings.TrimSuffix(kind, ">") {
			case "str", "unicode", "int", "long", "float", "complex", "bool", "none", "list", "tuple", "dict", "bytes":
				return "", false
			}
			return rest, true
		}
	}
	return "", false
}

// scalars goes through the scalars of a text that is like YAML.
type scalars struct {
	src   string
	pos   int
	at    int
	text  string
	tag   string
	isKey bool
	// asked is set behind "? ", which makes what follows a key.
	asked bool
	// inBlock is set while the text of a block is taken; there is none in it.
	inBlock bool
	anchors map[string]string
	// full is set when there are more anchors than are kept: then no alias is known.
	full bool
	// handles are what tags may begin with, and what that stands for.
	handles map[string]string
}

// breaks makes one of all that ends a line in YAML 1.1 (section 4.2), and a blank of
// a byte order mark, without moving what is behind.
var breaks = strings.NewReplacer("\r", "\n", "\u0085", "\n ", "\u2028", "\n  ", "\u2029", "\n  ", "\ufeff", "   ")

func newScalars(src string) *scalars {
	return &scalars{src: breaks.Replace(src), anchors: make(map[string]string), handles: map[string]string{"!": "!", "!!": "tag:yaml.org,2002:"}}
}

const maxAnchors = 1000

// next finds the next scalar, and reports whether there was one.
func (s *scalars) next() bool {
	s.tag = ""
	anchor := ""
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; c {
		case ' ', '\t', '\r', '\n', ',', '[', ']', '{', '}':
			s.pos++
		case ':', '?':
			s.pos++
			s.asked = c == '?' && (s.pos == len(s.src) || blank(s.src[s.pos]))
			if s.pos < len(s.src) && s.src[s.pos] == '#' {
				s.pos++ // within a plain scalar, where it begins no comment
			}
		case '-':
			if rest := s.src[s.pos:]; strings.HasPrefix(rest, "---") && len(rest) > 3 && blank(rest[3]) && (s.pos == 0 || s.src[s.pos-1] == '\n') {
				s.pos += 3
				continue
			}
			if s.pos+1 < len(s.src) && !blank(s.src[s.pos+1]) {
				s.scalar(anchor)
				return true
			}
			s.pos++
		case '#':
			s.line()
		case '!':
			s.note(s.tagged())
		case '%':
			s.directive()
		case '&':
			anchor = s.word()[1:]
		default:
			s.scalar(anchor)
			return true
		}
	}
	return s.tag != "" && s.last()
}

// last gives a tag that stands at the end, with an empty scalar.
func (s *scalars) last() bool {
	s.at, s.text, s.isKey = len(s.src), "", false
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func (s *scalars) line() {
	if i := strings.IndexByte(s.src[s.pos:], '\n'); i >= 0 {
		s.pos += i
		return
	}
	s.pos = len(s.src)
}

// directive reads "%TAG handle prefix" (YAML 1.2, section 6.8.2); other text that
// begins like one is gone past.
func (s *scalars) directive() {
	start := s.pos
	s.pos++
	if start > 0 && s.src[start-1] != '\n' && s.src[start-1] != '\r' {
		return
	}
	line, _, _ := strings.Cut(s.src[start:], "\n")
	if words := strings.Fields(line); len(words) > 2 && words[0] == "%TAG" {
		if _, known := s.handles[words[1]]; known || len(s.handles) < maxAnchors {
			s.handles[words[1]] = words[2]
		}
		s.line()
	}
}

// maxTail is how much is read of a tag beyond a comma or bracket: what makes it
// one of Python's fits in it, escapes and all.
const maxTail = 128

// tagged reads a tag and returns what it stands for: with its handle resolved,
// or written out ("!<…>"), and with its escapes decoded. PyYAML's tags go on
// where those of YAML 1.2 end, at a comma or bracket; the text goes on there.
func (s *scalars) tagged() string {
	start := s.pos
	if rest := s.src[start:]; strings.HasPrefix(rest, "!<") {
		if end := strings.IndexAny(rest[:min(len(rest), maxTail)], ">\r\n"); end > 0 {
			s.pos += end + 1
			return unescape(rest[2:end])
		}
	}
	tag := s.word()
	tail := s.src[s.pos:min(len(s.src), s.pos+maxTail)]
	if end := strings.IndexAny(tail, " \t\r\n{}"); end >= 0 {
		tail = tail[:end]
	}
	end := 1
	if i := strings.IndexByte(tag[1:], '!'); i >= 0 {
		end = i + 2
	}
	prefix, known := s.handles[tag[:end]]
	switch {
	case !known && len(s.handles) >= maxAnchors:
		return "tag:yaml.org,2002:python/unknown:" + tag // it may be any, since not all are kept
	case !known:
		prefix = tag[:end]
	}
	return unescape(prefix + tag[end:] + tail)
}

// note keeps a tag, unless one before on the same scalar is of Python's.
func (s *scalars) note(tag string) {
	if _, ok := pythonTag(s.tag); !ok {
		s.tag = tag
	}
}

// unescape decodes "%41" as a URI has it, and leaves what is no escape.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (s *scalars) word() string {
	start := s.pos
	for s.pos < len(s.src) && !blank(s.src[s.pos]) && !strings.ContainsRune(",[]{}", rune(s.src[s.pos])) {
		s.pos++
	}
	if s.pos == start {
		s.pos++
	}
	return s.src[start:s.pos]
}

// scalar reads one, and whether a colon makes it a key.
func (s *scalars) scalar(anchor string) {
	s.at = s.pos
	switch c := s.src[s.pos]; c {
	case '"', '\'':
		s.quoted(c)
	default:
		s.plain()
	}
	end := s.pos
	for end < len(s.src) && (s.src[end] == ' ' || s.src[end] == '\t') {
		end++
	}
	s.isKey = end < len(s.src) && s.src[end] == ':'
	asked := s.asked
	s.asked = false
	if c := s.text[:min(1, len(s.text))]; !s.isKey && (c == "|" || c == ">") && (asked || anchor != "") && !s.inBlock {
		s.block()
	}
	s.isKey = s.isKey || asked
	s.anchored(anchor)
}

// block takes what follows the mark of a block for the scalar, with its tag.
func (s *scalars) block() {
	tag := s.tag
	s.inBlock = true
	defer func() { s.inBlock = false }()
	if s.next(); tag != "" {
		s.note(tag)
	}
}

func (s *scalars) anchored(anchor string) {
	if anchor == "" {
		return
	}
	s.full = s.full || len(s.anchors) >= maxAnchors
	s.anchors[anchor] = s.text
	if s.full {
		clear(s.anchors)
	}
}

// resolved is the scalar, or what an alias of an anchor before stands for. A key
// whose anchor was not kept may be any, and is taken for the worst.
func (s *scalars) resolved() string {
	if name, ok := strings.CutPrefix(s.text, "*"); ok {
		if s.full && s.isKey {
			return "_target_"
		}
		return s.anchors[strings.TrimRight(name, " \t")]
	}
	return s.text
}

func (s *scalars) plain() {
	for s.pos++; s.pos < len(s.src); s.pos++ {
		c := s.src[s.pos]
		if c == '\n' || c == '\r' || c == ',' || c == ']' || c == '}' || c == '[' || c == '{' {
			break
		}
		if c == ':' && (s.pos+1 == len(s.src) || blank(s.src[s.pos+1])) {
			break
		}
		if c == '#' && blank(s.src[s.pos-1]) {
			break
		}
	}
	s.text = strings.TrimRight(s.src[s.at:s.pos], " \t")
}

func (s *scalars) quoted(quote byte) {
	var b strings.Builder
	for s.pos++; s.pos < len(s.src); s.pos++ {
		c := s.src[s.pos]
		switch {
		case c == quote && quote == '\'' && s.pos+1 < len(s.src) && s.src[s.pos+1] == '\'':
			s.pos++
		case c == quote:
			s.pos++
			s.text = b.String()
			return
		case c == '\\' && quote == '"':
			n, r := yamlEscape(s.src[s.pos:])
			b.WriteString(r)
			s.pos += n - 1
			continue
		}
		b.WriteByte(c)
	}
	// No end: it is no quote but a mark in plain text.
	s.pos = s.at
	s.plain()
}

// yamlEscape reads an escape of YAML 1.2, section 5.7: those that can spell a
// name; others stand for themselves.
func yamlEscape(s string) (int, string) {
	digits := 0
	if len(s) > 1 && (s[1] == '\n' || s[1] == '\r') { // a line that is continued
		return 1 + len(s[1:]) - len(strings.TrimLeft(s[1:], " \t\r\n")), ""
	}
	if len(s) > 1 {
		digits = map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	}
	if digits > 0 && len(s) >= 2+digits {
		var n rune
		for _, c := range s[2 : 2+digits] {
			i := strings.IndexRune("0123456789abcdef", c|0x20)
			if i < 0 || n > 0x10ffff {
				return 2, s[:2]
			}
			n = n<<4 | rune(i)
		}
		return 2 + digits, string(n)
	}
	return min(2, len(s)), s[min(1, len(s)):min(2, len(s))]
}

// value is that of the key that has just been read: the scalar behind it, or what
// an alias of an anchor before stands for. The scan goes on at it.
func (s *scalars) value() string {
	at := s.pos
	defer func() { s.pos = at }()
	if !s.next() || s.isKey {
		return ""
	}
	if strings.HasPrefix(s.text, "*") {
		return s.resolved()
	}
	if s.text == "|" || s.text == ">" || s.text == "|-" || s.text == ">-" {
		s.next()
	}
	return s.text
}
