// Package architecture holds what the house's plan promises: which module and
// which stage may know which. An edge that is not listed here is an error, with
// the reason in words.
package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/cavra/cavra/"

// allowed are the edges between modules.
var allowed = map[string]struct {
	to  []string
	why string
}{
	"schemas":    {nil, "the contracts know nobody, so that anybody can know them"},
	"sdk":        {[]string{"schemas"}, "what authors build on must not drag in the product"},
	"plugins":    {[]string{"schemas", "sdk"}, "a plugin is its own program: the wire is all it shares with the agent"},
	"agent":      {[]string{"schemas", "sdk"}, "the agent holds the key and parses no artifact byte, so no parser may be linked in"},
	"aggregator": {[]string{"schemas", "sdk"}, "the aggregator believes only what is signed, so it shares no code with those who sign"},
	"testbed":    {[]string{"schemas", "sdk", "plugins"}, "tests stand outside the programs and drive what is built"},
}

// stages are the steps of each program's pipeline, and what gives an agent its
// identity before. None imports another: only the module's top file wires them.
var stages = map[string][]string{
	"agent":      {"discover", "inspect", "judge", "sign", "spool", "egress", "publish", "enrol"},
	"aggregator": {"ingest", "admit", "clickhouse", "posture", "serve"},
}

// stageEdges are the exceptions, each with its reason.
var stageEdges = map[string]string{
	"aggregator: serve → clickhouse": "documents are put together from the database's own rows: a second set of row types would say the same",
	"aggregator: serve → posture":    "posture is a pure function over rows; serve is who calls it",
}

// parsers are packages that read artifact formats; the agent links none of
// them outside what its own wire and files need.
var parsers = []string{"archive/tar", "archive/zip", "compress/bzip2", "compress/flate", "compress/gzip", "compress/lzw", "compress/zlib", "encoding/gob", "encoding/xml", "debug/elf", "debug/pe", "image"}

type source struct {
	module, dir, file string
	imports           []string
	test              bool
	ast               *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var out []source
	for name := range allowed {
		err := filepath.WalkDir(filepath.Join(root, name), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(p, ".go") {
				return nil
			}
			s, err := read(root, name, p)
			out = append(out, s)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 20 {
		t.Fatalf("only %d Go files found under %s", len(out), root)
	}
	return out
}

func read(root, name, p string) (source, error) {
	f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, p)
	if err != nil {
		return source{}, err
	}
	s := source{module: name, dir: path.Dir(filepath.ToSlash(rel)), file: filepath.ToSlash(rel), test: strings.HasSuffix(p, "_test.go"), ast: f}
	for _, i := range f.Imports {
		v, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return source{}, err
		}
		s.imports = append(s.imports, v)
	}
	return s, nil
}

func TestModuleEdges(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports {
			to, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			to, _, _ = strings.Cut(to, "/")
			if rule := allowed[s.module]; to != s.module && !slices.Contains(rule.to, to) {
				t.Errorf("%s imports %s, but %s may import only %v: %s", s.file, i, s.module, rule.to, rule.why)
			}
		}
	}
}

// stage is the pipeline step that an import path or folder is in, if any.
func stage(module, rest string) string {
	parts := strings.Split(rest, "/")
	if len(parts) >= 2 && parts[0] == "internal" && slices.Contains(stages[module], parts[1]) {
		return parts[1]
	}
	return ""
}

func TestStageEdges(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		from := stage(s.module, strings.TrimPrefix(s.dir, s.module+"/"))
		if from == "" || s.test {
			continue
		}
		for _, i := range s.imports {
			rest, ours := strings.CutPrefix(i, module+s.module+"/")
			to := stage(s.module, rest)
			if !ours || to == "" || to == from {
				continue
			}
			edge := s.module + ": " + from + " → " + to
			used[edge] = true
			if stageEdges[edge] == "" {
				t.Errorf("%s imports %s: stages do not know each other, the module's top file wires them (edge %q)", s.file, i, edge)
			}
		}
	}
	for edge := range stageEdges {
		if !used[edge] {
			t.Errorf("the exception %q is not used any more: delete it", edge)
		}
	}
}

func TestAgentParsesNoArtifact(t *testing.T) {
	for _, s := range sources(t) {
		if s.module != "agent" || s.test {
			continue
		}
		for _, i := range s.imports {
			if slices.Contains(parsers, i) {
				t.Errorf("%s imports %s: the process that holds the key and the network parses no artifact byte", s.file, i)
			}
		}
	}
}

// linked are the packages among those that parse formats which the agent's program
// holds all the same, with who imports them, which is everything below where a name
// ends with a slash: none of those sees an artifact.
var linked = map[string]struct {
	by  []string
	why string
}{
	"compress/flate": {[]string{"compress/gzip", "compress/zlib", "net/http", "golang.org/x/net/http2", "golang.org/x/net/internal/httpcommon", "github.com/klauspost/compress/flate"}, "HTTP, and Kafka's compressions"},
	"compress/gzip": {[]string{
		"net/http", "golang.org/x/net/http2", "golang.org/x/net/internal/httpcommon", "google.golang.org/grpc", "google.golang.org/protobuf/internal/impl",
		"connectrpc.com/connect", "runtime/pprof", "github.com/klauspost/compress/gzip", "github.com/aws/",
	}, "HTTP, and descriptors of our own messages"},
	"compress/zlib": {[]string{"debug/elf", "debug/macho", "debug/pe"}, "sections of programs"},
	"debug/elf":     {[]string{module + "sdk/plugin", "github.com/hashicorp/go-plugin/internal/cmdrunner"}, "the headers of plugins that were measured"},
	"debug/pe":      {[]string{"github.com/hashicorp/go-plugin/internal/cmdrunner"}, "go-plugin's own words about a program that does not start, which our runner replaces"},
	"encoding/xml":  {[]string{"github.com/aws/"}, "answers of AWS"},
	"encoding/gob":  {[]string{"net/rpc"}, "go-plugin's other protocol, which is not allowed"},
}

// TestAgentLinksNoParser holds the whole of the agent's program to the same: neither
// is there a package of the plugins in it, nor one that parses formats but by whom that
// is known.
func TestAgentLinksNoParser(t *testing.T) {
	const format = "{{.ImportPath}} {{join .Imports \" \"}}"
	out, err := exec.Command("go", "list", "-C", "../..", "-deps", "-f", format, "./agent/cmd/cavra").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if strings.HasPrefix(words[0], module+"plugins/") {
			t.Errorf("the agent's program holds %s", words[0])
		}
		for _, i := range words[1:] {
			if !slices.Contains(parsers, i) {
				continue
			}
			found[i] = true
			known := func(by string) bool {
				return words[0] == by || strings.HasSuffix(by, "/") && strings.HasPrefix(words[0], by)
			}
			if !slices.ContainsFunc(linked[i].by, known) {
				t.Errorf("%s, which the agent's program holds, imports %s: the process that holds the key parses no artifact byte", words[0], i)
			}
		}
	}
	for name, l := range linked {
		if !found[name] {
			t.Errorf("%s is not linked any more (%s): delete the exception", name, l.why)
		}
	}
}

// TestOneProgramLoadsTokens holds that the agent itself stays a static program
// without foreign code: what loads a library is linked into cavra-pkcs11 alone.
func TestOneProgramLoadsTokens(t *testing.T) {
	const binding = "agent/internal/keys/cryptoki"
	for _, s := range sources(t) {
		if s.module != "agent" {
			continue
		}
		if slices.Contains(s.imports, "github.com/ebitengine/purego") && s.dir != binding {
			t.Errorf("%s imports purego: only %s loads a library", s.file, binding)
		}
		if slices.Contains(s.imports, module+binding) && s.dir != "agent/cmd/cavra-pkcs11" {
			t.Errorf("%s imports %s: only the program cavra-pkcs11 does", s.file, binding)
		}
	}
}

func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "helpers", "helper", "types", "models", "manager", "pkg", "misc", "base"}
	for _, s := range sources(t) {
		if slices.Contains(banned, s.ast.Name.Name) {
			t.Errorf("%s: package %s says nothing of what is in it", s.file, s.ast.Name.Name)
		}
	}
}

func TestPackageComments(t *testing.T) {
	has := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || strings.Contains(s.dir, "schemas/gen/") {
			continue
		}
		text := ""
		if s.ast.Doc != nil {
			text = s.ast.Doc.Text()
		}
		has[s.dir] = has[s.dir] || len(text) > 40
	}
	for dir, ok := range has {
		if !ok {
			t.Errorf("%s has no package comment: say what it is for and what it guarantees", dir)
		}
	}
}
