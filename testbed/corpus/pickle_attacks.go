package corpus

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// Attack is a pickle that would run something on load, or that two loaders read
// differently. A scan must not pass it, and must name what it reaches.
type Attack struct {
	// Class is "stream", "resolution" or "meaning": what hides the attack.
	Class string
	// Name says how, in a few words; it is unique.
	Name    string
	Content []byte
	// Verdict is the least that a scan may say: Warn or Fail.
	Verdict predicate.Verdict
	// Pairs are modules and names that a scan must list among the imports.
	Pairs [][2]string
}

// PickleAttacks are the attacks on pickle scanners that are known to us, each
// in its smallest form. What would be called gets an inert word.
func PickleAttacks() []Attack {
	return slices.Concat(streamAttacks(), resolutionAttacks(), meaningAttacks())
}

func attack(class, name, content string, pairs ...[2]string) Attack {
	return Attack{Class: class, Name: name, Content: []byte(content), Verdict: predicate.Fail, Pairs: pairs}
}

// doubtful is an attack's form that need only be warned of.
func doubtful(class, name, content string, pairs ...[2]string) Attack {
	a := attack(class, name, content, pairs...)
	a.Verdict = predicate.Warn
	return a
}

var (
	osSystem = [2]string{"os", "system"}
	// callSystem is os.system called with an inert word, in protocol 2.
	callSystem = global("os", "system") + binUnicode(inertWord) + "\x85R"
)

// stackGlobal pushes a module and a name as short strings, and resolves them.
func stackGlobal(module, name string) string {
	return shortUnicode(module) + shortUnicode(name) + "\x93"
}

// call calls what callee pushes with what the arguments push.
func call(callee string, args ...string) string {
	return callee + "(" + strings.Join(args, "") + "tR"
}

// list pushes a list of what the items push.
func list(items ...string) string { return "](" + strings.Join(items, "") + "e" }

// chars pushes each character of a word as a string.
func chars(word string) string {
	var b strings.Builder
	for _, c := range word {
		b.WriteString(shortUnicode(string(c)))
	}
	return b.String()
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
func hexOf(s string) string    { return hex.EncodeToString([]byte(s)) }
