// Package lightgbm reads LightGBM's models, which are text: a header, one section
// for each tree, and what the training was done with. Every line is read, and the
// numbers by which the library finds its way in a tree, and in the text, are held
// against their bounds. No line leads to code.
package lightgbm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// ID is the format's id.
const ID = "lightgbm"

const (
	ruleMalformed = "tree.malformed"
	ruleIndex     = "tree.index"
	ruleDuplicate = "tree.key.duplicate"
	// maxLine bounds a line, in bytes. That of a large tree takes some hundred KiB.
	maxLine = 32 << 20
)

// Rules lists the rules that Scan may name.
func Rules() []string { return []string{ruleDuplicate, ruleIndex, ruleMalformed, "model.limit"} }

// Format is LightGBM's text as a format of the program.
type Format struct{}

// Identify implements content.Format: boosters write "tree" and a version.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h := bytes.ReplaceAll(v.Head[:min(len(v.Head), 64)], []byte("\r\n"), []byte("\n"))
	return bytes.HasPrefix(h, []byte("tree\nversion=v")) || bytes.HasPrefix(h, []byte("tree\nnum_class=")), nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{v: v, in: bufio.NewReaderSize(io.NewSectionReader(v.Bytes, 0, v.Size), 64<<10)}
	if err := s.run(ctx); err != nil {
		return cursor.Settle(v, err, ID, ruleMalformed, 0)
	}
	v.Parsed(0, v.Size)
	return nil
}

// section is the part of the text that a line belongs to.
type section int

const (
	header section = iota
	trees
	importances
	parameters
	tail
)

// scan is one scan of one model.
type scan struct {
	v  *content.Visit
	in *bufio.Reader
	// at is where the line that was read last begins, next where it ends.
	at, next int64
	section  section
	seen     map[string]bool
	tree     *tree
	number   int
	sizes    []int64
	began    int64
	features int64
}

func (s *scan) fault(rule, what string) error {
	return &cursor.Fault{Rule: rule, What: what, Why: predicate.Malformed, At: s.at}
}

// line reads the next line without its end. It is io.EOF behind the last.
func (s *scan) line() (string, error) {
	s.at = s.next
	var whole []byte
	for {
		part, err := s.in.ReadSlice('\n')
		s.next += int64(len(part))
		if len(whole)+len(part) > maxLine {
			return "", &cursor.Fault{Rule: "model.limit", What: "a line is too long", Why: predicate.LimitBytes, At: s.at}
		}
		whole = append(whole, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(whole) == 0:
			return "", io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return "", fmt.Errorf("read line: %w", err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(whole), "\n"), "\r"), nil
	}
}

func (s *scan) run(ctx context.Context) error {
	s.seen = make(map[string]bool)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := s.line()
		if errors.Is(err, io.EOF) {
			return s.end()
		}
		if err != nil {
			return err
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0xfffd }) {
			return s.fault("", "a line that is no text")
		}
		if line == "" {
			continue
		}
		if err := s.take(line); err != nil {
			return err
		}
	}
}

// end is reached at the end of the text.
func (s *scan) end() error {
	if s.section < importances {
		s.at = s.v.Size
		return &cursor.Fault{What: "the text is cut short", Why: predicate.Truncated, At: s.at}
	}
	return nil
}

// take reads one line by the section it stands in.
func (s *scan) take(line string) error {
	switch s.section {
	case header:
		return s.header(line)
	case trees:
		return s.inTree(line)
	case parameters:
		if line == "end of parameters" {
			s.section = tail
			return nil
		}
		if line[0] != '[' || line[len(line)-1] != ']' || !strings.Contains(line, ": ") {
			return s.fault("", "a parameter that is none")
		}
		return nil
	}
	return s.behind(line)
}

func (s *scan) header(line string) error {
	if line == "tree" && s.at == 0 || line == "average_output" {
		return nil
	}
	if strings.HasPrefix(line, "Tree=") || line == "end of trees" {
		s.section = trees
		return s.inTree(line)
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return s.fault("", "a line that is no setting")
	}
	switch key {
	case "version", "num_class", "num_tree_per_iteration", "label_index", "objective", "feature_names", "feature_infos", "monotone_constraints":
	case "max_feature_idx":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			return s.fault("", "max_feature_idx")
		}
		s.features = n + 1
	case "tree_sizes":
		for f := range strings.FieldsSeq(value) {
			n, err := strconv.ParseInt(f, 10, 63)
			if err != nil || n <= 0 {
				return s.fault("", "tree_sizes")
			}
			s.sizes = append(s.sizes, n)
		}
	default:
		return &cursor.Fault{What: "a setting that is not known", Why: predicate.UnsupportedFormat, At: s.at}
	}
	return s.once(key)
}

// once reports a setting that is there twice.
func (s *scan) once(key string) error {
	if s.seen[key] {
		s.v.Found(ruleDuplicate, ID, s.at, cursor.Clean(key))
	}
	s.seen[key] = true
	return nil
}

// inTree reads a line of a tree.
func (s *scan) inTree(line string) error {
	key, value, ok := strings.Cut(line, "=")
	switch {
	case line == "end of trees":
		s.section = importances
		return s.closeTree()
	case !ok:
		return s.fault("", "a line that is no setting")
	case key == "Tree":
		if err := s.closeTree(); err != nil {
			return err
		}
		if value != strconv.Itoa(s.number) {
			return s.fault("", "trees that are not in their order")
		}
		s.number++
		s.began, s.tree = s.at, newTree(s.features)
		s.seen = make(map[string]bool)
		return nil
	case s.tree == nil:
		return s.fault("", "a setting outside of a tree")
	}
	if what := s.tree.set(key, value); what != "" {
		rule := ruleMalformed
		if what == leadsOut {
			rule = ruleIndex
		}
		return s.fault(rule, key+": "+what)
	}
	return s.once(key)
}

// closeTree checks the tree that has ended. The library goes from tree to tree by
// their sizes, so one that lies makes it read other text than this.
func (s *scan) closeTree() error {
	if s.tree == nil {
		return nil
	}
	what := s.tree.check()
	s.tree = nil
	if what != "" {
		return s.fault(ruleIndex, what)
	}
	if i := s.number - 1; len(s.sizes) > 0 && (i >= len(s.sizes) || s.sizes[i] != s.at-s.began && s.section == trees || s.section == importances && (len(s.sizes) != s.number || s.sizes[i] < s.at-s.began-4 || s.sizes[i] > s.at-s.began)) {
		return s.fault(ruleIndex, "tree_sizes lead elsewhere")
	}
	return nil
}

// behind reads a line behind the trees.
func (s *scan) behind(line string) error {
	if text, ok := strings.CutPrefix(line, "pandas_categorical:"); ok {
		r := strictjson.New([]byte(text))
		if err := r.Skip(); err != nil || len(strings.TrimSpace(text[min(r.At(), len(text)):])) > 0 {
			return s.fault("", "pandas_categorical is no JSON")
		}
		return nil
	}
	switch line {
	case "feature_importances:", "feature importances:":
		return nil
	case "parameters:":
		s.section = parameters
		return nil
	}
	i := strings.LastIndexByte(line, '=')
	if i < 0 || s.section == tail {
		return s.fault("", "a line that is not known")
	}
	if _, err := strconv.ParseFloat(line[i+1:], 64); err != nil {
		return s.fault("", "an importance that is no number")
	}
	return nil
}
