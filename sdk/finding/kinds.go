package finding

import (
	_ "embed"
	"strings"
)

//go:embed kinds.txt
var kindsText string

// OtherKind is what a kind is called that is not among the shipped ones.
const OtherKind = "other"

// Kinds are names of formats and of classes of location. What a scanner calls
// them is its own choice, so only those that are listed leave a machine.
type Kinds map[string]bool

// ShippedKinds returns those that are compiled in.
func ShippedKinds() Kinds {
	k := Kinds{}
	for line := range strings.Lines(kindsText) {
		if word := strings.TrimSpace(line); word != "" && !strings.HasPrefix(word, "#") {
			k[word] = true
		}
	}
	return k
}

// Outbound is the name that a kind has where it leaves the machine.
func (k Kinds) Outbound(name string) string {
	if k[name] {
		return name
	}
	return OtherKind
}
