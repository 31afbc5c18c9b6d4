package repository

import (
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats/pickle"
	"github.com/cavra/cavra/schemas/predicate"
)

// TestTargets replays the list: each name on it is passed, no name that the table
// of pickles knows to be dangerous is on it, and nothing near it is passed with it.
func TestTargets(t *testing.T) {
	table, err := pickle.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	dangerous := func(module, name string) bool {
		return module != "" && table.Judge(module, name).Judged == predicate.JudgedDangerous
	}
	// Every run of Hydra writes these down; no pickle has a use for them.
	known := map[string]bool{"hydra._internal.core_plugins": true}
	count, reason, seen := 0, "", make(map[string]bool)
	for line := range strings.Lines(targetsText) {
		if strings.HasPrefix(line, "#") {
			reason = line
			continue
		}
		module, names, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || reason == "" || seen[module] {
			t.Errorf("%q: want a module that has no line yet, and names, below a reason", line)
		}
		seen[module] = true
		for _, name := range strings.Fields(names) {
			path := module + "." + name
			if name == anyClass {
				path = module + ".AnyClass"
			}
			count++
			if !vetted(path) {
				t.Errorf("%s is on the list and not passed", path)
			}
			if reaches(strings.Split(path, "."), dangerous) && !known[module[:max(0, strings.LastIndexByte(module, '.'))]] {
				t.Errorf("%s is dangerous", path)
			}
			for _, near := range []string{path + ".load", module + ".any_" + name, "x." + path, module + ".os.system", strings.ToUpper(module) + "." + name} {
				if vetted(near) {
					t.Errorf("%s is passed with %s", near, path)
				}
			}
		}
	}
	t.Logf("%d names of %d modules", count, len(seen))
}
