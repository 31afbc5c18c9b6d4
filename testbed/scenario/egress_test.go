package scenario

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/testbed/stack"
	"github.com/cavra/cavra/testbed/wire"
)

// flock are canaries by where they stand.
type flock struct {
	t   *testing.T
	all []wire.Canary
}

func (f *flock) word(where string) string {
	c := wire.NewCanary(where)
	f.all = append(f.all, c)
	return c.Word
}

// tree writes models that have a canary wherever an artifact or a registry has a
// string.
func (f *flock) tree(root string) {
	f.t.Helper()
	dir := filepath.Join(root, f.word("name: folder"))
	put := func(name string, content []byte) {
		f.t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	put(f.word("name: file")+".pkl", fmt.Appendf(nil, "\x80\x04c%s\n%s\nX\x18\x00\x00\x00%s\x85R.", f.word("name: module"), f.word("name: attribute"), f.word("string of a pickle")))
	put("system.pkl", fmt.Appendf(nil, "cposix\nsystem\n(S'%s'\ntR.", f.word("argument of a dangerous call")))
	put("broken.pkl", fmt.Appendf(nil, "\x80\x04X\x18\x00\x00\x00%s\xff", f.word("string before a break")))
	put("nested.pkl", fmt.Appendf(nil, "cpickle\nloads\n(C\x1dcm\nS'%s'\n.tR.", f.word("nested pickle")))
	header := fmt.Sprintf(`{"__metadata__":{"note":"%s"},"%s":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}}`, f.word("metadata of safetensors"), f.word("name of a tensor"))
	put("model.safetensors", append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), f.word("weights")...))
	put("config.json", fmt.Appendf(nil, `{"architectures":["%s"],"auto_map":{"AutoModel":"%s.Model"},"api_key":"%s"}`, f.word("value in settings"), f.word("module in settings"), f.word("key in settings")))
	put("tokenizer_config.json", fmt.Appendf(nil, `{"chat_template":"{{ %s.__class__.__mro__ }}"}`, f.word("template")))
	put("README.md", []byte("# A model\n\n"+f.word("prose")+"\n"))
	put("handler.py", []byte("import os\nos.system('"+f.word("Python source")+"')\n"))
	put("unknown.bin", []byte("\x01\x02\x03"+f.word("unknown content")+"\x00\xff"))
	put("credentials", []byte("[default]\naws_secret_access_key = "+f.word("credentials file")+"\n"))
	put("archive.zip", f.archive())
	if err := os.Symlink(filepath.Join("/nonexistent", f.word("target of a link")), filepath.Join(dir, f.word("name: link"))); err != nil {
		f.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, f.word("name: unreadable folder")), 0o000); err != nil {
		f.t.Fatal(err)
	}
}

func (f *flock) archive() []byte {
	f.t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	m, err := w.Create(f.word("name of a member") + "/../" + f.word("path in an archive") + ".pkl")
	if err == nil {
		_, err = m.Write([]byte("cos\nsystem\n(S'" + f.word("string in an archive") + "'\ntR."))
	}
	if err == nil {
		err = w.SetComment(f.word("comment of an archive"))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return b.Bytes()
}

// secrets are the agent's own, which must not leave either.
func (f *flock) secrets(a *stack.Agent) {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join(a.Dir(), "*"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, name := range files {
		base := filepath.Base(name)
		if base != "names.key" && !strings.HasPrefix(base, "key-") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			f.t.Fatal(err)
		}
		if text := strings.Split(string(b), "\n"); strings.HasPrefix(text[0], "-----BEGIN") {
			b = []byte(strings.Join(text[1:len(text)-2], ""))
			// What comes before the key in its envelope (RFC 8410) is no secret.
			if b, err = base64.StdEncoding.DecodeString(string(b)); err != nil {
				f.t.Fatal(err)
			}
			b = b[16:]
		}
		f.all = append(f.all, wire.Canary{Where: "the agent's " + base, Word: string(b)})
	}
}

// digests are those of the files, which are small, so that none leaves plainly.
func (f *flock) digests(root string) {
	f.t.Helper()
	err := filepath.WalkDir(root, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			if e != nil && e.IsDir() && errors.Is(err, os.ErrPermission) {
				return nil
			}
			return err
		}
		b, err := os.ReadFile(name)
		f.all = append(f.all, wire.Canary{Where: "digest of " + e.Name(), Word: predicate.DigestOf(b).Hex()})
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// kept looks for the reports where they stay.
func (f *flock) kept(w *world, a *stack.Agent) {
	f.t.Helper()
	out, err := stack.Command(w.ctx, nil, w.programs.Cavra(), "agent", "kept", "--dir", a.Dir())
	w.must(err)
	for _, want := range []string{"fail", "system.pkl", "pickle.import.dangerous"} {
		if out.Code != 0 || !bytes.Contains(out.Stdout, []byte(want)) {
			f.t.Errorf("cavra agent kept: exit code %d, without %q:\n%s%s", out.Code, want, out.Stdout, out.Stderr)
		}
	}
}

var payloads = regexp.MustCompile(`"payload":"([A-Za-z0-9+/=]+)"`)

// signed are the statements that were sent, each once.
func signed(t *testing.T, traffic wire.Traffic) []predicate.Predicate {
	t.Helper()
	var out []predicate.Predicate
	once := map[string]bool{}
	for _, s := range traffic.Streams {
		for _, m := range payloads.FindAllSubmatch(s.Bytes, -1) {
			if once[string(m[1])] {
				continue // on its way to the aggregator
			}
			once[string(m[1])] = true
			b, err := base64.StdEncoding.DecodeString(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			p, err := predicate.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
	}
	return out
}

// tapped is a world in a namespace of its own, in which everything on the wire is
// captured, and in which agents, broker and aggregator talk over TLS. The broker
// writes down the secrets of its connections, so that what was captured can be
// read; the agent is the one that is shipped.
type tapped struct {
	*world
	capture *wire.Capture
	keyLog  string
}

func tap(t *testing.T, p stack.Programs) *tapped {
	t.Helper()
	capture, err := wire.Start()
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "aggregator.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:%d\nembedded: {dir: %s, kafka_port: 0, tls: true}\n", port, filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keyLog := filepath.Join(dir, "keylog")
	w := unwatched(t, dir, p, stack.AggregatorConfig{
		Programs: p, Dir: filepath.Join(dir, "data"), Config: config, Env: []string{"CAVRA_TLS_KEYLOG=" + keyLog},
	})
	return &tapped{w, capture, keyLog}
}

// sent runs an agent once, waits until the aggregator has everything, and returns
// what was captured, decrypted.
func (w *tapped) sent(a *stack.Agent, env ...string) wire.Traffic {
	w.t.Helper()
	w.must(a.RunOnce(w.within(3*time.Minute), env...))
	head, err := a.Status(w.ctx)
	w.must(err)
	id, err := a.Identity()
	w.must(err)
	w.must(w.aggregator.AwaitHead(w.within(time.Minute), id.Agent, head))
	sealed, err := w.capture.Stop()
	w.must(err)
	broker, err := netip.ParseAddrPort(w.aggregator.Kafka())
	w.must(err)
	for _, s := range sealed.To(broker.Port()) {
		if bytes.Contains(s.Bytes, []byte(`"payloadType"`)) {
			w.t.Fatal("an envelope was sent to the broker in the clear")
		}
	}
	log, err := os.ReadFile(w.keyLog)
	w.must(err)
	secrets, err := wire.ParseKeyLog(log)
	w.must(err)
	traffic, n, err := wire.Decrypt(sealed, secrets)
	w.must(err)
	to := traffic.To(broker.Port())
	if !slices.ContainsFunc(to, func(s wire.Stream) bool { return bytes.Contains(s.Bytes, []byte(`"payloadType"`)) }) {
		w.t.Fatalf("no envelope was seen on its way to the broker: %s", traffic)
	}
	w.t.Logf("%s; %d of them TLS 1.3, decrypted", traffic, n)
	return traffic
}

// logged builds the aggregator that writes down the secrets of its connections.
func logged(t *testing.T) stack.Programs {
	t.Helper()
	return tagged(t, folder(t), "keylog", "./aggregator/cmd/cavra-aggregator")
}

// TestNothingOfAnArtifactLeaves runs the product in a network namespace where
// everything on the wire is captured and decrypted, over a tree that has canaries
// wherever a string can stand, and looks for them in every coding. At the privacy
// level names, the names are seen, so the test can see; and nothing else is. At
// the level full-local not even the digest of a file is seen, and no report.
func TestNothingOfAnArtifactLeaves(t *testing.T) {
	if os.Getenv(wire.Namespace) == "" {
		wire.Rerun(t)
		return
	}
	p := logged(t)
	for _, privacy := range []string{"strict", "names", "full-local"} {
		t.Run(privacy, func(t *testing.T) { leaves(t, p, privacy) })
	}
}

func leaves(t *testing.T, p stack.Programs, privacy string) {
	w := tap(t, p)
	f := &flock{t: t}
	f.tree(w.tree)
	a := w.enrol("agent", "--privacy", privacy, "--keyed-below", "4096")
	f.secrets(a)
	traffic := w.sent(a, "AWS_SECRET_ACCESS_KEY="+f.word("environment"), "HF_TOKEN="+f.word("environment, token"))
	id, err := a.Identity()
	w.must(err)
	kinds := map[string]int{}
	for _, s := range signed(t, traffic) {
		kinds[predicate.Short(s.PredicateType())]++
	}
	// Hidden by a key, at all levels.
	f.digests(w.tree)
	if privacy == "full-local" {
		f.kept(w.world, a)
		if len(kinds) != 2 || kinds["epoch"] == 0 || kinds["heartbeat"] == 0 {
			t.Errorf("statements that left: %v, want signs of life alone", kinds)
		}
	} else if kinds["scan"] == 0 || kinds["inventory"] == 0 {
		t.Errorf("statements that left: %v, with no report among them", kinds)
	}
	if state, err := w.aggregator.Agent(w.ctx, id.Agent); err != nil || state.Privacy != privacy {
		t.Errorf("the aggregator shows an agent of privacy %q, %v", state.Privacy, err)
	}
	t.Logf("%d canaries; statements %v", len(f.all), kinds)
	seen := map[string]bool{}
	for _, s := range wire.Sight(traffic, f.all) {
		if privacy == "names" && strings.HasPrefix(s.Canary.Where, "name: ") {
			seen[s.Canary.Where] = true
			continue
		}
		t.Errorf("left the machine: %s", s)
	}
	if privacy == "names" {
		for _, name := range []string{"name: folder", "name: file", "name: module", "name: attribute"} {
			if !seen[name] {
				t.Errorf("%s is sent in the clear at this level, and was not seen", name)
			}
		}
	}
	if privacy == "strict" {
		w.resolves(a)
		w.stands()
	}
}

// stands follows an artifact that is named by a keyed digest through the
// aggregator: its page, its exposure, and its evidence, verified.
func (w *tapped) stands() {
	w.t.Helper()
	artifacts, err := w.aggregator.Artifacts(w.ctx)
	w.must(err)
	exposures, err := w.aggregator.Exposures(w.ctx, "open")
	w.must(err)
	for _, a := range artifacts {
		if !a.Digest.Keyed() {
			w.t.Errorf("%s, of a tree of small files, is named plainly", a.Digest)
		}
		if a.Verdict != string(predicate.Fail) || a.Kind != string(predicate.File) {
			continue
		}
		if a.References == 0 || !slices.ContainsFunc(exposures, func(e stack.Exposure) bool { return e.Artifact == a.Digest }) {
			w.t.Errorf("%s fails, at %d places, and no exposure says so", a.Digest, a.References)
		}
		var detail struct {
			Found []struct {
				Rule string `json:"rule"`
			} `json:"found"`
		}
		w.must(w.aggregator.Get(w.ctx, "/v1/artifacts/"+string(a.Digest), nil, &detail))
		if len(detail.Found) == 0 {
			w.t.Errorf("%s fails without a finding", a.Digest)
		}
		file := filepath.Join(w.dir, "evidence.json")
		out, err := w.aggregator.CLI(w.ctx, "export", "--artifact", string(a.Digest), "--output", file)
		w.must(err)
		if out.Code != 0 {
			w.t.Fatalf("export %s: exit code %d: %s", a.Digest, out.Code, out.Stderr)
		}
		if out, err = stack.Command(w.ctx, nil, w.programs.Cavra(), "verify", file, "--trust-embedded-keys-unsafe"); err != nil || out.Code != 0 {
			w.t.Errorf("verify the evidence of %s: exit code %d, %v: %s", a.Digest, out.Code, err, out.Stderr)
		}
		return
	}
	w.t.Errorf("no file of %d artifacts fails", len(artifacts))
}

var keyedHash = regexp.MustCompile(`hmac-sha256:[0-9a-f]{64}`)

// resolves turns back every keyed hash that the agent has sent.
func (w *tapped) resolves(a *stack.Agent) {
	w.t.Helper()
	out, err := stack.Command(w.ctx, nil, w.programs.Cavra(), "agent", "sent", "--dir", a.Dir(), "--format", "json")
	w.must(err)
	args := []string{"resolve", "--dir", a.Dir()}
	for _, m := range keyedHash.FindAll(out.Stdout, -1) {
		args = append(args, string(m))
	}
	out, err = stack.Command(w.ctx, nil, w.programs.Cavra(), args...)
	w.must(err)
	if out.Code != 0 || len(args) < 20 || !bytes.Contains(out.Stdout, []byte("system.pkl")) {
		w.t.Errorf("cavra resolve of %d hashes: exit code %d:\n%s%s", len(args)-3, out.Code, out.Stdout, out.Stderr)
	}
}
