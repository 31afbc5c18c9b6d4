package repository

import (
	_ "embed"
	"regexp"
	"strings"
	"sync"
)

//go:embed targets.txt
var targetsText string

// anyClass stands in the list for every class directly in a module.
const anyClass = "Class"

var targets = sync.OnceValue(func() map[string]bool {
	list := make(map[string]bool)
	for line := range strings.Lines(targetsText) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] == "#" {
			continue
		}
		for _, name := range words[1:] {
			if name == anyClass {
				name = "*"
			}
			list[words[0]+"."+name] = true
		}
	}
	return list
})

// architectures are the modules of transformers that hold its models' classes.
var architectures = regexp.MustCompile(`^transformers\.models\.[a-z0-9_]+\.modeling_[a-z0-9_]+\.[A-Z][A-Za-z0-9]+$`)

// exactly reports whether a target is on the list by its own path: whoever put it
// there looked at it, whatever it looks like.
func exactly(path string) bool { return targets()[path] && !strings.HasSuffix(path, "*") }

// vetted reports whether a target is on the list, by its exact path, or as a class
// directly in a module that the list has classes of.
func vetted(path string) bool {
	list := targets()
	if exactly(path) {
		return true
	}
	i := strings.LastIndexByte(path, '.')
	if i < 0 || i+1 == len(path) {
		return false
	}
	if c := path[i+1]; c < 'A' || c > 'Z' {
		return false
	}
	return list[path[:i]+".*"] || architectures.MatchString(path)
}
