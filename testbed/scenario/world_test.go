package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/testbed/corpus"
	"github.com/cavra/cavra/testbed/forge"
	"github.com/cavra/cavra/testbed/ledger"
	"github.com/cavra/cavra/testbed/stack"
)

// programs are the built ones; a missing build is a failure and not a skip.
func programs(t *testing.T) stack.Programs {
	t.Helper()
	p, err := stack.FindPrograms(".")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// armed builds the agent and the aggregator with their marks armed, and puts
// the plugins and the engine beside them.
func armed(t *testing.T, dir string) stack.Programs {
	t.Helper()
	return tagged(t, dir, "faultpoint", "./agent/cmd/cavra", "./aggregator/cmd/cavra-aggregator")
}

// tagged builds programs with a tag, and puts the others beside them.
func tagged(t *testing.T, dir, tag string, packages ...string) stack.Programs {
	t.Helper()
	built := programs(t)
	bin := filepath.Join(dir, "armed")
	build := exec.Command("go", append([]string{"build", "-tags", tag, "-o", bin + "/"}, packages...)...)
	build.Dir = filepath.Dir(string(built))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the armed programs: %v\n%s", err, out)
	}
	for _, name := range []string{"cavra", "cavra-connector-fs", "cavra-formats", "libchdb.so"} {
		target, err := filepath.EvalSymlinks(filepath.Join(string(built), name))
		if err == nil {
			err = os.Symlink(target, filepath.Join(bin, name))
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	return stack.Programs(bin)
}

// folder is a folder that stays when the test fails.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cavra-scenario-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs and folders of this run are in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// world is an aggregator, an agent with a tree to look after, and a tail of the
// topic.
type world struct {
	t          *testing.T
	ctx        context.Context
	dir        string
	programs   stack.Programs
	aggregator *stack.Aggregator
	agent      *stack.Agent
	tree       string
	rules      *finding.Catalogue
	files      []ledger.File
	batches    int
	tail       *ledger.Tail
	keys       []ledger.Key
}

// newWorld starts an aggregator, and a tail of its topic.
func newWorld(t *testing.T, dir string, p stack.Programs, cfg stack.AggregatorConfig, login func() (ledger.Login, error)) *world {
	t.Helper()
	w := unwatched(t, dir, p, cfg)
	if login == nil {
		login = w.embeddedLogin
	}
	w.tail = ledger.NewTail(topic.Partitions, login)
	tailing, cancel := context.WithCancel(w.ctx)
	group, ctx := errgroup.WithContext(tailing)
	group.Go(func() error { return w.tail.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Errorf("tail of the topic: %v", err)
		}
	})
	return w
}

// unwatched starts an aggregator without a tail of its topic.
func unwatched(t *testing.T, dir string, p stack.Programs, cfg stack.AggregatorConfig) *world {
	t.Helper()
	w := &world{t: t, dir: dir, programs: p, tree: filepath.Join(dir, "models")}
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var err error
	if w.rules, err = finding.Shipped(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(w.tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if w.aggregator, err = stack.NewAggregator(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.aggregator.Close)
	w.must(w.aggregator.Start(w.ctx))
	return w
}

// embedded is the world without services.
func embedded(t *testing.T, dir string, p stack.Programs) *world {
	return newWorld(t, dir, p, stack.AggregatorConfig{Programs: p, Dir: filepath.Join(dir, "data")}, nil)
}

// embeddedLogin reads what the aggregator says of its broker, which has another
// password after each start.
func (w *world) embeddedLogin() (ledger.Login, error) {
	b, err := os.ReadFile(filepath.Join(w.aggregator.Dir(), "services.json"))
	if err != nil {
		return ledger.Login{}, err
	}
	var s struct {
		Kafka *struct {
			Address  string `json:"address"`
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"kafka"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return ledger.Login{}, err
	}
	if s.Kafka == nil {
		return ledger.Login{}, errors.New("services.json names no broker")
	}
	return ledger.Login(*s.Kafka), nil
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// enrol makes an agent that names everything plainly. Its key goes into the
// ledger.
func (w *world) enrol(name string, args ...string) *stack.Agent {
	w.t.Helper()
	a, err := stack.NewAgent(w.programs, filepath.Join(w.dir, name))
	w.must(err)
	w.t.Cleanup(a.Close)
	token := filepath.Join(w.dir, name+".token")
	w.must(w.aggregator.JoinToken(w.ctx, token, "--name", name))
	w.must(a.Enrol(w.ctx, w.aggregator.URL(), token, append([]string{"--scan", w.tree, "--privacy", "names", "--keyed-below", "0"}, args...)...))
	w.know(a)
	return a
}

// know enters an agent's present key in the ledger.
func (w *world) know(a *stack.Agent) {
	w.t.Helper()
	author := w.author(a)
	w.keys = append(w.keys, ledger.Key{Public: author.Key.Public(), Chain: chainOf(author.ID)})
}

func chainOf(id stack.Identity) ledger.ChainID {
	return ledger.ChainID{Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch}
}

// author signs and publishes with an agent's key and login.
func (w *world) author(a *stack.Agent) *forge.Author {
	w.t.Helper()
	author, err := forge.Open(a)
	w.must(err)
	w.t.Cleanup(func() {
		if err := author.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return author
}

var interval = regexp.MustCompile(`(?m)^interval:.*$`)

// hurry makes an agent look at its tree every second.
func (w *world) hurry(a *stack.Agent) {
	w.t.Helper()
	name := filepath.Join(a.Dir(), "agent.yaml")
	b, err := os.ReadFile(name)
	w.must(err)
	if !interval.Match(b) {
		w.t.Fatalf("%s says nothing of the interval:\n%s", name, b)
	}
	w.must(os.WriteFile(name, interval.ReplaceAll(b, []byte("interval: 1s")), 0o600))
}

// feed puts new files into the tree: first beside it, so that no file is seen
// half-written.
func (w *world) feed(n int) {
	w.t.Helper()
	w.batches++
	name := fmt.Sprintf("batch-%03d", w.batches)
	beside := filepath.Join(w.dir, name)
	manifest, err := corpus.WriteMany(beside, n, uint64(w.batches))
	w.must(err)
	w.must(os.Rename(beside, filepath.Join(w.tree, name)))
	files, err := ledger.FromManifest(manifest, w.rules)
	w.must(err)
	for _, f := range files {
		f.Path = path.Join(name, f.Path)
		w.files = append(w.files, f)
	}
}

// within bounds a wait.
func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(w.ctx, d, fmt.Errorf("not within %s", d))
	w.t.Cleanup(cancel)
	return ctx
}
