package inert

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth of arrays and objects within each other. Python's own decoder
	// gives up before.
	maxDepth = 2000
	// maxKey is how much of a string is kept, to compare it with key names.
	maxKey = 64
)

// codeKeys are keys by which a loader of JSON configuration comes to code: it
// imports a module beside the file (auto_map, custom_pipelines, _class_name), runs
// a template (chat_template), calls what the value names (_target_), builds
// layers by it (class_name), imports a class (__loader__, and activation_function,
// tokenizer_class and the types of a structure where they are paths), loads another
// model (base_model_name_or_path), runs a graph (graph_module, base_code,
// arg_nodes), or opens the files of a package (itemInfoEntries) or of a server's
// archive (archiverVersion).
var codeKeys = map[string]bool{
	"auto_map": true, "auto_mapping": true, "chat_template": true, "custom_pipeline": true, "custom_pipelines": true, "_target_": true,
	"_class_name": true, "loader_module": true, "class_name": true, "registered_name": true, "__loader__": true,
	"base_model_name_or_path": true, "graph_module": true, "itemInfoEntries": true, "base_code": true, "arg_nodes": true, "archiverVersion": true, "modelServerVersion": true,
	"activation_function": true, "activation_fn": true, "sbert_ce_default_activation_function": true, "tokenizer_class": true, "structure": true,
}

// errNotJSON says that the content is not JSON.
var errNotJSON = errors.New("not JSON")

// place is where a key that leads to code stands.
type place struct {
	at  int64
	key string
}

// jsonReader checks that content is a sequence of JSON values (RFC 8259, and the
// NaN and Infinity of Python's decoder), in memory that does not grow with it.
type jsonReader struct {
	src    io.Reader
	buf    []byte
	pos    int
	end    int
	base   int64 // offset of buf[0]
	depth  int
	object [maxDepth/64 + 1]uint64 // which levels are objects
	text   []byte                  // the last string, cut to maxKey
	code   []place
	values int
	hints  hints
}

// hints are what two keys together lead to code by. The objects of a list, such as
// sentence-transformers' modules.json, name a class to import ("type") and the
// folder that it is made from ("path"); CompVis' settings name what is called
// ("target") with what ("params").
type hints struct {
	// typeAt and targetAt are the offsets of the first value that may be the path
	// of a class; zero for none.
	typeAt, targetAt int64
	inType, inTarget bool
	path, params     bool
}

// key notes a key; listed is set in an object of a list.
func (h *hints) key(k string, listed bool) {
	h.inType, h.inTarget = listed && k == "type", k == pair[0]
	h.path = h.path || listed && k == "path"
	h.params = h.params || k == pair[1]
}

// value notes a string.
func (h *hints) value(text []byte, at int64) {
	if bytes.IndexByte(text, '.') <= 0 {
		return
	}
	if h.inType && h.typeAt == 0 {
		h.typeAt = at
	}
	if h.inTarget && h.targetAt == 0 {
		h.targetAt = at
	}
}

// places are where pairs of keys lead to code.
func (h *hints) places() []place {
	var out []place
	if h.typeAt > 0 && h.path {
		out = append(out, place{at: h.typeAt, key: "type"})
	}
	if h.targetAt > 0 && h.params {
		out = append(out, place{at: h.targetAt, key: pair[0]})
	}
	return out
}

// readJSON returns the places of keys that lead to code, or errNotJSON.
func readJSON(ctx context.Context, src io.Reader, size int64) ([]place, error) {
	j := &jsonReader{src: src, buf: make([]byte, min(size, 64<<10))}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := j.token()
		if errors.Is(err, io.EOF) && j.values > 0 {
			return append(j.code, j.hints.places()...), nil
		}
		if err == nil {
			j.values++
			err = j.value(c)
		}
		if err != nil {
			return nil, notJSON(err)
		}
	}
}

// notJSON makes of an early end what it means here, and passes read errors on.
func notJSON(err error) error {
	if errors.Is(err, io.EOF) {
		return errNotJSON
	}
	return err
}

func (j *jsonReader) next() (byte, error) {
	if j.pos == j.end {
		if err := j.fill(); err != nil {
			return 0, err
		}
	}
	c := j.buf[j.pos]
	j.pos++
	return c, nil
}

// fill reads on, and keeps the last byte so that it can be given back.
func (j *jsonReader) fill() error {
	keep := 0
	if j.end > 0 && len(j.buf) > 1 {
		j.buf[0], keep = j.buf[j.end-1], 1
	}
	j.base += int64(j.end - keep)
	n, err := io.ReadAtLeast(j.src, j.buf[keep:], 1)
	j.pos, j.end = keep, keep+n
	return err
}

// back gives the last byte back.
func (j *jsonReader) back() { j.pos-- }

// at is the offset of the next byte.
func (j *jsonReader) at() int64 { return j.base + int64(j.pos) }

// token returns the next byte that is no white space.
func (j *jsonReader) token() (byte, error) {
	for {
		c, err := j.next()
		if err != nil || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c, err
		}
	}
}

// value reads the value that begins with c, without recursion.
func (j *jsonReader) value(c byte) error {
	base := j.depth
	for {
		opened, err := j.begin(c)
		if err != nil {
			return err
		}
		if !opened {
			if done, err := j.close(base); done || err != nil {
				return err
			}
		}
		if c, err = j.element(); err != nil {
			return err
		}
	}
}

// begin reads a scalar, or enters an array or object that is not empty.
func (j *jsonReader) begin(c byte) (opened bool, err error) {
	switch c {
	case '{', '[':
		closing := byte(']')
		if c == '{' {
			closing = '}'
		}
		next, err := j.token()
		if err != nil || next == closing {
			return false, err
		}
		if j.depth+1 >= maxDepth {
			return false, errNotJSON
		}
		j.depth++
		bit := uint64(1) << (j.depth % 64)
		j.object[j.depth/64] &^= bit
		if c == '{' {
			j.object[j.depth/64] |= bit
		}
		j.back()
		return true, nil
	case '"':
		at := j.at()
		if err := j.str(); err != nil {
			return false, err
		}
		j.hints.value(j.text, at)
		return false, nil
	}
	return false, j.scalar(c)
}

func (j *jsonReader) inObject() bool { return j.object[j.depth/64]>>(j.depth%64)&1 == 1 }

// close reads what follows a value: a comma, or the ends of what it is in. It
// reports done at the end of the outermost value.
func (j *jsonReader) close(base int) (done bool, err error) {
	for {
		if j.depth == base {
			return true, nil
		}
		c, err := j.token()
		switch {
		case err != nil:
			return false, err
		case c == ',':
			return false, nil
		case c == '}' && j.inObject() || c == ']' && !j.inObject():
			j.depth--
		default:
			return false, errNotJSON
		}
	}
}

// element reads a key, in an object, and returns the value's first byte.
func (j *jsonReader) element() (byte, error) {
	c, err := j.token()
	if err != nil {
		return 0, err
	}
	if !j.inObject() {
		return c, nil
	}
	if c != '"' {
		return 0, errNotJSON
	}
	at := j.at()
	if err := j.str(); err != nil {
		return 0, err
	}
	if k := string(j.text); codeKeys[k] && len(j.code) < 64 {
		j.code = append(j.code, place{at: at, key: k})
	}
	j.hints.key(string(j.text), j.depth == 2 && j.object[0]>>1&1 == 0)
	if c, err = j.token(); err != nil {
		return 0, err
	}
	if c != ':' {
		return 0, errNotJSON
	}
	return j.token()
}

// str reads a string after its opening quote.
func (j *jsonReader) str() error {
	j.text = j.text[:0]
	for {
		plain := j.pos
		for plain < j.end && j.buf[plain] != '"' && j.buf[plain] != '\\' && j.buf[plain] >= ' ' {
			plain++
		}
		j.keep(j.buf[j.pos:plain]...)
		j.pos = plain
		c, err := j.next()
		switch {
		case err != nil:
			return err
		case c == '"':
			return nil
		case c == '\\':
			if err := j.escape(); err != nil {
				return err
			}
		case c < ' ':
			return errNotJSON
		default:
			j.keep(c)
		}
	}
}

func (j *jsonReader) keep(b ...byte) {
	j.text = append(j.text, b[:min(len(b), maxKey-len(j.text))]...)
}

func (j *jsonReader) escape() error {
	c, err := j.next()
	if err != nil {
		return err
	}
	if i := bytes.IndexByte([]byte(`"\/bfnrt`), c); i >= 0 {
		j.keep("\"\\/\b\f\n\r\t"[i])
		return nil
	}
	if c != 'u' {
		return errNotJSON
	}
	var digits [4]byte
	for i := range digits {
		if digits[i], err = j.next(); err != nil {
			return err
		}
	}
	r, err := strconv.ParseUint(string(digits[:]), 16, 16)
	if err != nil {
		return errNotJSON
	}
	if utf16.IsSurrogate(rune(r)) {
		r = utf8.RuneError
	}
	j.keep(utf8.AppendRune(nil, rune(r))...)
	return nil
}

// scalar reads a number or a word that begins with c.
func (j *jsonReader) scalar(c byte) error {
	var word [maxKey]byte
	n := 0
	for {
		if n < len(word) {
			word[n] = c
			n++
		}
		next, err := j.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if endsScalar(next) {
			j.back()
			break
		}
		c = next
	}
	switch w := string(word[:n]); w {
	case "true", "false", "null", "NaN", "Infinity", "-Infinity":
		return nil
	default:
		return number(w, n == maxKey)
	}
}

func endsScalar(c byte) bool {
	switch c {
	case ' ', '\t', '\r', '\n', ',', ']', '}', ':':
		return true
	}
	return false
}

// number checks the grammar of RFC 8259. A number that is cut is taken for one
// when it begins as one.
func number(w string, cut bool) error {
	digits := 0
	for i := range len(w) {
		switch c := w[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '+' || c == '-' || c == '.' || c == 'e' || c == 'E':
		default:
			return errNotJSON
		}
	}
	if digits == len(w) || cut && digits > 0 {
		return nil
	}
	if _, err := strconv.ParseFloat(w, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
		return errNotJSON
	}
	return nil
}
