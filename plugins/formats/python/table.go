package python

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/pickle"
)

// category says what a call does, as far as that matters to who loads a model.
type category string

const (
	categoryNone    category = "none"
	categoryCommand category = "command"
	categoryCode    category = "code"
	categoryNative  category = "native"
	categorySocket  category = "socket"
	categoryNetwork category = "network"
	categoryFetch   category = "fetch"
	categoryObjects category = "objects"
	categoryFile    category = "file"
	// categoryListed is on the list of what no pickle may name, and on no list of
	// this package.
	categoryListed category = "listed"
)

//go:embed calls.txt
var callsText string

// table is the list of calls by exact path, and by what all below a path is.
type table struct {
	exact, below map[string]category
	pickles      *pickle.Table
}

var shipped = sync.OnceValues(func() (*table, error) {
	pickles, err := pickle.Shipped()
	if err != nil {
		return nil, err
	}
	return parseTable(callsText, pickles)
})

// parseTable reads lines of a category and paths; "a.b.*" is all below a.b.
func parseTable(src string, pickles *pickle.Table) (*table, error) {
	t := &table{exact: make(map[string]category), below: make(map[string]category), pickles: pickles}
	for line := range strings.Lines(src) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		for _, path := range words[1:] {
			to := t.exact
			if cut, ok := strings.CutSuffix(path, ".*"); ok {
				path, to = cut, t.below
			}
			if _, twice := to[path]; twice {
				return nil, fmt.Errorf("parse table of calls: %s is there twice", path)
			}
			to[path] = category(words[0])
		}
	}
	return t, nil
}

// of is the category of a call of the path: by its exact name, then by the longest
// path above it, then by the list that pickles are judged by.
func (t *table) of(path string) category {
	if c, ok := t.exact[path]; ok {
		return c
	}
	for above := path; ; {
		i := strings.LastIndexByte(above, '.')
		if i < 0 {
			break
		}
		above = above[:i]
		if c, ok := t.below[above]; ok {
			return c
		}
		// A method of what is listed is as bad as that.
		if c, ok := t.exact[above]; ok && c != categoryNone {
			return c
		}
	}
	i := strings.LastIndexByte(path, '.')
	if i <= 0 || path[0] == '.' {
		return categoryNone
	}
	if t.pickles.Judge(path[:i], path[i+1:]).Judged == predicate.JudgedDangerous {
		return categoryListed
	}
	return categoryNone
}

// reexported are modules that others have as an attribute of theirs.
var reexported = map[string]bool{
	"builtins": true, "ctypes": true, "importlib": true, "nt": true, "os": true, "pickle": true, "posix": true, "runpy": true, "shutil": true,
	"socket": true, "subprocess": true, "sys": true,
}

// canonical is the path under which a thing is listed: a module that is had as an
// attribute of another is itself, and twins have one name.
func canonical(path string) string {
	if strings.HasPrefix(path, ".") {
		return path
	}
	from, rest := path, path
	for i := 0; ; i++ {
		head, tail, more := strings.Cut(rest, ".")
		if i > 0 && reexported[strings.TrimLeft(head, "_")] && !strings.HasPrefix(path, "importlib.") && !strings.HasPrefix(path, "socket.") && !strings.HasPrefix(path, "asyncio.") {
			from = strings.TrimLeft(rest, "_")
		}
		if !more {
			break
		}
		rest = tail
	}
	head, tail, more := strings.Cut(from, ".")
	if twin, ok := twins[head]; ok {
		head = twin
	}
	if !more {
		return head
	}
	return head + "." + tail
}

// twins are other names of the same modules.
var twins = map[string]string{
	"posix": "os", "nt": "os", "__builtin__": "builtins", "__builtins__": "builtins", "_pickle": "pickle", "cPickle": "pickle", "_socket": "socket",
	"_ctypes": "ctypes", "urllib2": "urllib", "_io": "io", "_posixsubprocess": "subprocess", "_thread": "threading", "pathlib2": "pathlib",
}
