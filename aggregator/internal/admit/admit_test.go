package admit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// agent signs statements as one epoch of an agent would.
type agent struct {
	tb    testing.TB
	chain control.ChainID
	key   *identity.Key
}

func newAgent(tb testing.TB, tenant, name string, epoch uint64) *agent {
	tb.Helper()
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		tb.Fatal(err)
	}
	return &agent{tb, control.ChainID{Tenant: tenant, Agent: name, Epoch: epoch}, key}
}

func (a *agent) link(sequence uint64, previous predicate.Digest, salt int) predicate.Link {
	return predicate.Link{
		Tenant: a.chain.Tenant, Agent: a.chain.Agent, KeyID: a.key.Public().ID(), Epoch: a.chain.Epoch,
		Sequence: sequence, Previous: previous, SignedAt: predicate.At(time.Date(2026, 5, 1, 0, 0, salt, 0, time.UTC)),
	}
}

// payload is the statement at a sequence: an epoch at 1, a gap elsewhere.
func (a *agent) payload(l predicate.Link) []byte {
	a.tb.Helper()
	var p predicate.Predicate = &predicate.Gap{Link: l, Cause: predicate.SpoolLost}
	if l.Sequence == 1 {
		p = &predicate.Epoch{Link: l, Cause: predicate.Enrolled, Algorithm: predicate.Ed25519}
	}
	return a.marshal(p)
}

func (a *agent) marshal(p predicate.Predicate) []byte {
	a.tb.Helper()
	b, err := predicate.Marshal(p)
	if err != nil {
		a.tb.Fatal(err)
	}
	return b
}

func (a *agent) sign(payload []byte) []byte {
	a.tb.Helper()
	b, err := attest.Sign(payload, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return b
}

// spool signs the statements of sequences 1 to n.
func (a *agent) spool(n int) (envelopes [][]byte, digests []predicate.Digest) {
	previous := predicate.ZeroDigest
	for i := range n {
		payload := a.payload(a.link(uint64(i+1), previous, 0))
		previous = attest.Digest(payload)
		envelopes, digests = append(envelopes, a.sign(payload)), append(digests, previous)
	}
	return envelopes, digests
}

// store is a real control store, in which some links may be forgotten, and an
// archive in memory.
type store struct {
	*control.Store
	path     string
	revoked  map[predicate.Digest]time.Time
	archived []control.Link
	err      error
}

func newStore(tb testing.TB, agents ...*agent) *store {
	tb.Helper()
	s := &store{path: filepath.Join(tb.TempDir(), "control.db"), revoked: map[predicate.Digest]time.Time{}}
	var err error
	if s.Store, err = control.Open(context.Background(), control.Config{Path: s.path}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	for _, a := range agents {
		der, err := a.key.Public().DER()
		if err != nil {
			tb.Fatal(err)
		}
		id, c := sha256.Sum256(der), a.chain
		s.exec(tb, `INSERT INTO tenants (id, name, created_at) VALUES ($1, $1, 0) ON CONFLICT DO NOTHING`, c.Tenant)
		s.exec(tb, `INSERT INTO agents (tenant, id, name, status, created_at) VALUES ($1, $2, $2, 'active', 0) ON CONFLICT DO NOTHING`, c.Tenant, c.Agent)
		s.exec(tb, `INSERT INTO keys (key_id, tenant, agent, epoch, algorithm, public_key, status, created_at) VALUES ($1, $2, $3, $4, 'ed25519', $5, 'active', 0)`,
			id[:], c.Tenant, c.Agent, c.Epoch, der)
	}
	return s
}

// exec changes the store's database behind its back.
func (s *store) exec(tb testing.TB, query string, args ...any) {
	tb.Helper()
	db, err := sql.Open("sqlite", s.path)
	if err == nil {
		_, err = db.Exec(query, args...)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func (s *store) KeyByID(ctx context.Context, id predicate.Digest) (control.Key, error) {
	key, err := s.Store.KeyByID(ctx, id)
	if at, ok := s.revoked[id]; ok {
		key.Status, key.RevokedAt = control.Revoked, at
	}
	return key, errors.Join(err, s.err)
}

func (s *store) Links(_ context.Context, _ control.ChainID, sequences []uint64, _ *row.Range) ([]control.Link, error) {
	var out []control.Link
	for _, l := range s.archived {
		if slices.Contains(sequences, l.Sequence) {
			out = append(out, l)
		}
	}
	return out, nil
}

// commit takes a decision's chains into the store.
func (s *store) commit(tb testing.TB, d *decided) {
	tb.Helper()
	ctx := context.Background()
	_, next, err := s.OpenPlan(ctx, "t", 0)
	if err != nil {
		tb.Fatal(err)
	}
	p := control.Plan{Topic: "t", From: next, Next: next + 1, Count: 1}
	if err := s.RecordPlan(ctx, &p); err != nil {
		tb.Fatal(err)
	}
	if err := s.CommitPlan(ctx, &p, d.updates); err != nil {
		tb.Fatal(err)
	}
}

var planned = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func rangeOf(values ...[]byte) *row.Range {
	r := &row.Range{Topic: "t", Partition: 3, From: 100, To: 100 + int64(len(values)), PlannedAt: planned}
	for i, v := range values {
		r.Messages = append(r.Messages, row.Message{Offset: 100 + int64(i), Value: v})
	}
	return r
}

// decided is what Admit returns.
type decided struct {
	Rows    *row.Batch
	updates []control.ChainUpdate
}

func (d *decided) placed() (out []control.Placed) {
	for _, u := range d.updates {
		out = append(out, u.Statements...)
	}
	return out
}

func mustAdmit(tb testing.TB, s *store, r *row.Range) *decided {
	tb.Helper()
	a, err := New(Config{Keys: s, Chains: s, Archive: s})
	if err != nil {
		tb.Fatal(err)
	}
	rows, updates, err := a.Admit(context.Background(), r)
	if err != nil {
		tb.Fatal(err)
	}
	return &decided{rows, updates}
}

// outcomes is what the receipts say: outcome, or refused:reason.
func outcomes(d *decided) []string {
	var out []string
	for _, r := range d.Rows.Receipts {
		if r.Reason != "" {
			r.Outcome += ":" + r.Reason
		}
		out = append(out, r.Outcome)
	}
	return out
}

// flipped is the envelope with one bit of its payload or signature flipped and
// still in base64's one spelling.
func flipped(tb testing.TB, envelope []byte, field string) []byte {
	tb.Helper()
	mark := []byte(`"` + field + `":"`)
	start := bytes.Index(envelope, mark) + len(mark)
	end := start + bytes.IndexByte(envelope[start:], '"')
	raw, err := base64.StdEncoding.DecodeString(string(envelope[start:end]))
	if err != nil {
		tb.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	out := append(bytes.Clone(envelope[:start]), base64.StdEncoding.EncodeToString(raw)...)
	return append(out, envelope[end:]...)
}

func TestRefusals(t *testing.T) {
	ours, theirs := newAgent(t, "one", "a", 2), newAgent(t, "two", "a", 2)
	stranger, revoked := newAgent(t, "one", "b", 1), newAgent(t, "one", "c", 1)
	s := newStore(t, ours, theirs, revoked)
	s.revoked[revoked.key.Public().ID()] = planned
	good, digests := ours.spool(2)
	claim := func(change func(*predicate.Link)) []byte {
		l := ours.link(2, digests[0], 1)
		change(&l)
		return ours.sign(ours.payload(l))
	}
	strangers, _ := stranger.spool(1)
	revokeds, _ := revoked.spool(1)
	payload := ours.payload(ours.link(2, digests[0], 0))
	tests := map[string]struct {
		value []byte
		want  Reason
		owner string
	}{
		"empty":                   {nil, MalformedEnvelope, ""},
		"garbage":                 {[]byte("\x80\x04\x95garbage"), MalformedEnvelope, ""},
		"deep nesting":            {bytes.Repeat([]byte("["), 100_000), MalformedEnvelope, ""},
		"envelope with a space":   {append(bytes.Clone(good[0]), ' '), MalformedEnvelope, ""},
		"too large":               {bytes.Repeat([]byte("x"), attest.MaxEnvelope+1), TooLarge, ""},
		"unknown key":             {strangers[0], UnknownKey, ""},
		"revoked key":             {revokeds[0], RevokedKey, "one"},
		"flipped bit in payload":  {flipped(t, good[1], "payload"), BadSignature, "one"},
		"flipped bit in sig":      {flipped(t, good[1], "sig"), BadSignature, "one"},
		"another key's id":        {bytes.ReplaceAll(good[1], []byte(ours.key.Public().ID()), []byte(theirs.key.Public().ID())), BadSignature, "two"},
		"not canonical":           {ours.sign(bytes.Replace(payload, []byte(`"cause":`), []byte(`"cause": `), 1)), MalformedStatement, "one"},
		"not a statement":         {ours.sign([]byte(`{"a":1}`)), MalformedStatement, "one"},
		"another tenant claimed":  {claim(func(l *predicate.Link) { l.Tenant = "two" }), WrongTenant, "one"},
		"another agent claimed":   {claim(func(l *predicate.Link) { l.Agent = "b" }), WrongAgent, "one"},
		"an older epoch claimed":  {claim(func(l *predicate.Link) { l.Epoch = 1 }), WrongEpoch, "one"},
		"another key claimed":     {claim(func(l *predicate.Link) { l.KeyID = theirs.key.Public().ID() }), MalformedStatement, "one"},
		"first without an epoch":  {ours.sign(ours.marshal(&predicate.Gap{Link: ours.link(1, predicate.ZeroDigest, 0), Cause: predicate.SpoolLost})), MalformedStatement, "one"},
		"epoch of another method": {ours.sign(ours.marshal(&predicate.Epoch{Link: ours.link(1, predicate.ZeroDigest, 0), Cause: predicate.Enrolled, Algorithm: predicate.ECDSAP256})), MalformedStatement, "one"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := mustAdmit(t, s, rangeOf(good[0], tt.value, good[1]))
			// One bad statement never blocks its successors.
			if diff := cmp.Diff([]string{"linked", "refused:" + string(tt.want), "linked"}, outcomes(d)); diff != "" {
				t.Fatalf("outcomes (-want +got):\n%s", diff)
			}
			q := d.Rows.Quarantine
			if len(q) != 1 || len(d.placed()) != 2 || len(d.Rows.Statements) != 2 {
				t.Fatalf("%d quarantined, %d placed, %d kept", len(q), len(d.placed()), len(d.Rows.Statements))
			}
			want := row.Quarantined{
				Tenant: tt.owner, Topic: "t", Partition: 3, Offset: 101, LastOffset: 101, Reason: string(tt.want), Detail: q[0].Detail,
				Digest: predicate.DigestOf(tt.value).Hex(), Bytes: uint64(len(tt.value)), Message: tt.value[:min(len(tt.value), row.MaxQuarantined)], ReceivedAt: planned,
			}
			if diff := cmp.Diff(want, q[0]); diff != "" {
				t.Errorf("quarantine (-want +got):\n%s", diff)
			}
			if q[0].Detail == "" || len(q[0].Detail) > maxDetail+4 {
				t.Errorf("detail %q", q[0].Detail)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	a := newAgent(t, "one", "a", 1)
	e, d := a.spool(6)
	fork := func(sequence uint64, previous predicate.Digest) []byte {
		return a.sign(a.payload(a.link(sequence, previous, 7)))
	}
	restored := a.payload(a.link(3, d[1], 9))
	tests := map[string]struct {
		ranges [][][]byte
		want   []string
	}{
		"in order":                     {[][][]byte{{e[0], e[1]}, {e[2]}}, []string{"linked", "linked", "linked"}},
		"replay in the range":          {[][][]byte{{e[0], e[0]}}, []string{"linked", "replayed"}},
		"replay of an earlier range":   {[][][]byte{{e[0], e[1]}, {e[0], e[1], e[2]}}, []string{"linked", "linked", "replayed", "replayed", "linked"}},
		"gap, then filled":             {[][][]byte{{e[0], e[2]}, {e[1], e[3]}}, []string{"linked", "early", "linked", "linked"}},
		"backwards":                    {[][][]byte{{e[2], e[1], e[0]}}, []string{"early", "early", "linked"}},
		"fork":                         {[][][]byte{{e[0], e[1], fork(2, d[0])}, {e[2]}}, []string{"linked", "linked", "forked", "linked"}},
		"fork and its replay":          {[][][]byte{{e[0], e[1]}, {fork(2, d[0])}, {fork(2, d[0])}}, []string{"linked", "linked", "forked", "replayed"}},
		"predecessor is another":       {[][][]byte{{e[0], fork(2, d[4])}}, []string{"linked", "forked"}},
		"restored old spool goes on":   {[][][]byte{{e[0], e[1], e[2], e[3]}, {a.sign(restored), fork(4, attest.Digest(restored))}}, []string{"linked", "linked", "linked", "linked", "forked", "forked"}},
		"restored old spool, re-sent":  {[][][]byte{{e[0], e[1], e[2]}, {e[1], e[2]}}, []string{"linked", "linked", "linked", "replayed", "replayed"}},
		"filled by another than named": {[][][]byte{{e[0], e[2]}, {fork(2, d[0])}}, []string{"linked", "early", "forked"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, a)
			var got []string
			for _, values := range tt.ranges {
				r := rangeOf(values...)
				d := mustAdmit(t, s, r)
				if diff := cmp.Diff(d, mustAdmit(t, s, r), cmp.AllowUnexported(decided{})); diff != "" {
					t.Fatalf("decided again before the commit, otherwise:\n%s", diff)
				}
				s.commit(t, d)
				got = append(got, outcomes(d)...)
				kept := slices.DeleteFunc(outcomes(d), func(o string) bool { return o == "replayed" })
				if len(d.Rows.Statements) != len(kept) {
					t.Errorf("%d statements kept of %v", len(d.Rows.Statements), outcomes(d))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForgottenLinksComeFromTheArchive(t *testing.T) {
	a := newAgent(t, "one", "a", 1)
	e, d := a.spool(4)
	s := newStore(t, a)
	s.commit(t, mustAdmit(t, s, rangeOf(e[0], e[1], e[2])))
	s.exec(t, "DELETE FROM chain_links")
	s.archived = []control.Link{{Sequence: 2, Digest: d[1], Previous: d[0]}, {Sequence: 3, Digest: d[2], Previous: d[1]}}
	other := a.sign(a.payload(a.link(2, d[0], 5)))
	// The first one was dropped by retention: it cannot be told from a fork.
	got := outcomes(mustAdmit(t, s, rangeOf(e[1], other, e[3], e[0])))
	if diff := cmp.Diff([]string{"replayed", "forked", "linked", "forked"}, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

func TestARevocationAfterThePlanDoesNotCount(t *testing.T) {
	a := newAgent(t, "one", "a", 1)
	e, _ := a.spool(1)
	s := newStore(t, a)
	for _, tt := range []struct {
		at   time.Time
		want string
	}{{planned.Add(time.Millisecond), "linked"}, {planned, "refused:revoked_key"}, {planned.Add(-time.Hour), "refused:revoked_key"}} {
		s.revoked[a.key.Public().ID()] = tt.at
		if got := outcomes(mustAdmit(t, s, rangeOf(e[0]))); got[0] != tt.want {
			t.Errorf("revoked at %s: %s, want %s", tt.at, got[0], tt.want)
		}
	}
}

func TestUnreadableOffsetsAreAccountedFor(t *testing.T) {
	a := newAgent(t, "one", "a", 1)
	e, _ := a.spool(2)
	r := rangeOf(e...)
	r.Messages[1].Offset = 120
	r.To = 140
	broken := errors.New("batch \x00broken")
	r.Unreadable = []row.Unreadable{
		{First: 101, Last: 110, Digest: strings.Repeat("a", 64), Err: broken},
		{First: 130, Last: 139, Digest: strings.Repeat("b", 64), TooLarge: true, Err: broken},
	}
	d := mustAdmit(t, newStore(t, a), r)
	var got []string
	for _, r := range d.Rows.Receipts {
		got = append(got, fmt.Sprintf("%d-%d %s%s", r.Offset, r.LastOffset, r.Outcome, r.Reason))
	}
	want := []string{"100-100 linked", "101-110 refusedmalformed_envelope", "120-120 linked", "130-139 refusedtoo_large"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	if detail := d.Rows.Quarantine[0].Detail; detail != "batch �broken" {
		t.Errorf("detail %q", detail)
	}
}

func TestAFailingStoreIsAnErrorAndNoRefusal(t *testing.T) {
	a := newAgent(t, "one", "a", 1)
	e, _ := a.spool(1)
	s := newStore(t, a)
	s.err = errors.New("store is away")
	admitter, err := New(Config{Keys: s, Chains: s, Archive: s})
	if err != nil {
		t.Fatal(err)
	}
	if d, u, err := admitter.Admit(context.Background(), rangeOf(e...)); !errors.Is(err, s.err) || d != nil || u != nil {
		t.Errorf("got %v, %v, %v", d, u, err)
	}
}

func TestALostRangeIsShown(t *testing.T) {
	r := &row.Range{Topic: "t", Partition: 3, From: 5, To: 90, PlannedAt: planned, Lost: true}
	want := &decided{Rows: &row.Batch{Receipts: []row.Receipt{{Topic: "t", Partition: 3, Offset: 5, LastOffset: 89, Outcome: Lost, Digest: row.ZeroDigest, ReceivedAt: planned}}}}
	if diff := cmp.Diff(want, mustAdmit(t, newStore(t), r), cmp.AllowUnexported(decided{})); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
}

// FuzzMessage shows that a hostile message, as it is or signed by an enrolled
// key, is either refused with a reason or a statement of that key's own chain,
// and is found to be the same when it is looked at again. It takes the steps of
// Admit that see the message's bytes, without its goroutines and stores.
func FuzzMessage(f *testing.F) {
	a, b := newAgent(f, "one", "a", 1), newAgent(f, "two", "b", 1)
	e, d := a.spool(3)
	for _, v := range e {
		f.Add(v, false)
	}
	f.Add(a.payload(a.link(2, d[0], 4)), true)
	f.Add(b.payload(b.link(2, d[0], 4)), true)
	f.Add([]byte("[[[["), false)
	id := a.key.Public().ID()
	keys := map[predicate.Digest]*control.Key{id: {ID: id, Tenant: "one", Agent: "a", Epoch: 1, Public: a.key.Public(), Status: control.Active}}
	f.Fuzz(func(t *testing.T, value []byte, signed bool) {
		if signed {
			if len(value) > predicate.MaxStatement {
				return
			}
			value = (&agent{t, a.chain, a.key}).sign(value)
		}
		look := func() (finding, row.Batch) {
			var found finding
			var rows row.Batch
			found.open(value)
			found.verify(keys, planned)
			if found.statement != nil {
				keep(&rows, &row.Receipt{Outcome: "linked", Digest: found.digest.Hex(), ReceivedAt: planned}, found.statement, value)
			}
			return found, rows
		}
		found, rows := look()
		again, rowsAgain := look()
		if found.refused != again.refused || found.digest != again.digest || !reflect.DeepEqual(rows, rowsAgain) {
			t.Fatalf("found %s %s, then %s %s", found.refused, found.digest, again.refused, again.digest)
		}
		if found.statement == nil {
			if found.refused == "" || found.detail == "" || rows.Rows() != 0 {
				t.Fatalf("refused for %q: %q, %d rows", found.refused, found.detail, rows.Rows())
			}
			return
		}
		l := found.statement.Place()
		if found.refused != "" || l.Tenant != "one" || l.Agent != "a" || l.Epoch != 1 || l.KeyID != id || len(rows.Statements) != 1 {
			t.Fatalf("believed %+v, refused %q", l, found.refused)
		}
	})
}

// BenchmarkAdmit measures the check of scans of the usual size, without stores.
func BenchmarkAdmit(b *testing.B) {
	a := newAgent(b, "one", "a", 1)
	e, _ := a.spool(1000)
	s := newStore(b, a)
	r := rangeOf(e...)
	for b.Loop() {
		mustAdmit(b, s, r)
	}
	b.ReportMetric(float64(b.N*len(e))/b.Elapsed().Seconds(), "statements/s")
}
