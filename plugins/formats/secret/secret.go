// Package secret looks for credentials that were left in a model's text: tokens of
// providers, private keys, and keys beside the name of a service. The rules are
// those of gitleaks that a shipped list names. What is said of a find is the id of
// its rule and an offset; the secret itself is never kept, logged or reported.
package secret

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"sort"
	"strings"
	"sync"

	ahocorasick "github.com/BobuSumisu/aho-corasick"
	"github.com/rs/zerolog"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"
	"github.com/zricethezav/gitleaks/v8/logging"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

const (
	rulePrefix = "secret."
	ruleLimit  = "model.limit"
	// class is that of the places of finds.
	class = "text"
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{rulePrefix + "credential", rulePrefix + "private-key", rulePrefix + "token", ruleLimit}
}

const (
	// MaxBytes is how much of a text is searched, from its beginning.
	MaxBytes = 16 << 20
	// MetadataBytes is how much of a container's description is searched.
	MetadataBytes = 256 << 10
	// maxWork bounds the bytes that rules are tried on, times the rules: some
	// seconds' worth.
	maxWork = 6 << 20
	// keyWork is what the rule for private keys takes more than others.
	keyWork = 4
	// before and after are how far around a word a secret may reach; a private key
	// may reach keyAfter.
	before, after, keyAfter = 128, 512, 8192
	// minRun is how many characters of a token stand around its word at least.
	minRun = 20
	piece  = 1 << 20
)

// list names the rules that are applied.
//
//go:embed rules.txt
var list string

// table is the list, and the words in it as a machine that finds them all.
type table struct {
	kinds map[string]string
	words []string
	// rules are how many rules each word has.
	rules []int
	// of are the kinds of each word's rules.
	of   []map[string]bool
	trie *ahocorasick.Trie
}

// words builds the table once; it costs below a millisecond.
var words = sync.OnceValue(func() *table {
	t := &table{kinds: make(map[string]string)}
	number := make(map[string]int)
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] == "#" {
			continue
		}
		t.kinds[f[0]] = f[1]
		for w := range strings.SplitSeq(f[2], ",") {
			i, ok := number[w]
			if !ok {
				i = len(t.words)
				number[w] = i
				t.words, t.of, t.rules = append(t.words, w), append(t.of, make(map[string]bool)), append(t.rules, 0)
			}
			t.of[i][f[1]] = true
			t.rules[i]++
		}
	}
	t.trie = ahocorasick.NewTrieBuilder().AddStrings(t.words).Build()
	return t
})

// detector compiles the rules, once, and only when some text has a word of one:
// that takes some 60 ms.
var detector = sync.OnceValues(func() (*detect.Detector, error) {
	// The library's log goes to standard error and may quote what it looks at.
	logging.Logger = zerolog.Nop()
	d, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		return nil, fmt.Errorf("compile rules for secrets: %w", err)
	}
	rules := make(map[string]config.Rule)
	for id := range words().kinds {
		r, ok := d.Config.Rules[id]
		if !ok {
			return nil, fmt.Errorf("compile rules for secrets: no rule %s", id)
		}
		rules[id] = r
	}
	d.Config.Rules = rules
	// A comment in the artifact takes nothing back.
	d.IgnoreGitleaksAllow = true
	return d, nil
})

// Scan searches the first most bytes of the content.
func Scan(ctx context.Context, v *content.Visit, most int64) error {
	size := min(v.Size, most)
	s := &scan{v: v, seen: make(map[string]bool)}
	for at := int64(0); at < size; at += piece {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("search for secrets: %w", err)
		}
		buf := make([]byte, min(size-at, piece+keyAfter))
		if err := content.ReadFull(v.Bytes, buf, at); err != nil {
			return err
		}
		if err := s.search(ctx, buf, at); err != nil || s.full {
			return err
		}
	}
	return nil
}

type scan struct {
	v    *content.Visit
	seen map[string]bool
	work int
	full bool
}

// search tries the rules around each word in b, which begins at an offset.
func (s *scan) search(ctx context.Context, b []byte, base int64) error {
	for _, w := range windows(b) {
		s.work += (w[1] - w[0]) * words().rulesIn(b[w[0]:w[1]])
		if s.work > maxWork {
			s.full = true
			s.v.Found(ruleLimit, class, base+int64(w[0]), string(predicate.LimitBytes))
			s.v.Unread(s.v.Size, s.v.Size, predicate.LimitBytes)
			return nil
		}
		d, err := detector()
		if err != nil {
			return err
		}
		text := b[w[0]:w[1]]
		for _, f := range d.DetectContext(ctx, detect.Fragment{Raw: string(text)}) { //nolint:staticcheck // what replaces it comes with the next major version
			if f.RuleID == "private-key" && !holdsKey(f.Secret) {
				continue
			}
			s.found(f.RuleID, base+int64(w[0]+max(0, bytes.Index(text, []byte(f.Secret)))))
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("search for secrets: %w", err)
		}
	}
	return nil
}

// found reports a rule's find, once for each place.
func (s *scan) found(id string, at int64) {
	kind, ok := words().kinds[id]
	key := fmt.Sprint(id, at)
	if !ok || s.seen[key] {
		return
	}
	s.seen[key] = true
	s.v.Found(rulePrefix+kind, class, at, id)
}

// windows are the parts of b around words of rules, in order, none twice.
func windows(b []byte) [][2]int {
	t := words()
	var out [][2]int
	t.trie.Walk(lower(b), func(end, n, pattern int64) bool {
		start, past := int(end-n+1), int(end+1)
		if t.only(pattern, "token") && run(b, start, past) < minRun || t.only(pattern, "credential") && !assigned(b, past) {
			return true
		}
		reach := after
		if t.of[pattern]["private-key"] {
			reach = keyAfter
		}
		out = append(out, [2]int{max(0, start-before), min(len(b), past+reach)})
		return true
	})
	sort.Slice(out, func(i, j int) bool { return out[i][0] < out[j][0] })
	merged := out[:0]
	for _, w := range out {
		if n := len(merged); n > 0 && w[0] <= merged[n-1][1] {
			merged[n-1][1] = max(merged[n-1][1], w[1])
			continue
		}
		merged = append(merged, w)
	}
	return merged
}

// rulesIn weighs the rules that have a word in b.
func (t *table) rulesIn(b []byte) int {
	n := 0
	met := make(map[int64]bool)
	t.trie.Walk(lower(b), func(_, _, pattern int64) bool {
		if !met[pattern] {
			met[pattern] = true
			n += t.rules[pattern]
			if t.of[pattern]["private-key"] {
				n += keyWork
			}
		}
		return true
	})
	return n
}

// only reports whether all rules of a word are of a kind.
func (t *table) only(word int64, kind string) bool { return t.of[word][kind] && len(t.of[word]) == 1 }

const (
	// nameRest is how far behind a service's name an assignment stands at most, and
	// quotes how much stands between it and the key.
	nameRest, quotes = 24, 8
	// minKey is the length of the shortest key that a rule knows.
	minKey = 10
)

// assigned reports whether a key may be assigned to the name that ends at past, as
// every rule on a service's name wants it.
func assigned(b []byte, past int) bool {
	for i := past; i < min(past+nameRest, len(b)); i++ {
		if strings.IndexByte("=>:|?,", b[i]) < 0 {
			continue
		}
		for j := i + 1; j < min(i+1+quotes, len(b)); j++ {
			if run(b, j, j) >= minKey {
				return true
			}
		}
	}
	return false
}

// minKeyBytes is how many characters a private key in PEM has at least: one line.
const minKeyBytes = 64

// holdsKey reports whether what stands between two marks of PEM is a key, and not
// the text of a program that looks for one.
func holdsKey(pem string) bool {
	_, body, _ := strings.Cut(strings.TrimPrefix(pem, "-----"), "-----")
	body, _, _ = strings.Cut(body, "-----")
	key, other := 0, 0
	for line := range strings.FieldsFuncSeq(strings.NewReplacer(`\n`, "\n", `\r`, "\n").Replace(body), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if strings.Contains(line, ": ") && key == 0 {
			continue // how it is encrypted
		}
		for _, c := range []byte(strings.TrimSpace(line)) {
			if tokenByte(c) && c != '@' && c != ':' && c != '~' {
				key++
			} else {
				other++
			}
		}
	}
	return key >= minKeyBytes && other*20 <= key
}

// run counts the characters of a token around b[start:past], up to minRun.
func run(b []byte, start, past int) int {
	n := past - start
	for i := past; i < len(b) && n < minRun && tokenByte(b[i]); i++ {
		n++
	}
	for i := start - 1; i >= 0 && n < minRun && tokenByte(b[i]); i-- {
		n++
	}
	return n
}

func tokenByte(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("-_.~+/=:@", c) >= 0
}

// lower is b with the letters of ASCII made small, byte for byte.
func lower(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		out[i] = c
	}
	return out
}
