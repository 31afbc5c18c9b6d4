package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/identity"
)

type verifyOptions struct {
	keys           []string
	trustEmbedded  bool
	requireUnitary bool
	logKey         string
	witnessKeys    []string
	witnesses      int
}

func newVerify() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check exported evidence offline",
		Long: `Check exported evidence without a server: that each envelope was signed by the
key it names, over exactly the statement it holds, and whether each statement
follows its predecessor in its agent's chain.

FILE is one DSSE envelope, or an export {"envelopes":[…],"keys":[…]}. Who signed
is known only as well as the key is: give the key that you got from a source you
trust with --key (PEM, or an export that carries it). Keys that come in FILE
itself show that nothing was damaged since it was written, not who wrote it.

An export may prove that its statements stand in the aggregator's transparency
log. With --log-key, the key that you first saw of that log, all of them have to,
and none may stand there behind the end of its key: a key that was stolen after
another followed cannot sign for the time before. Without it, it cannot be told
whether a key had ended or was revoked. With --witness-key as well, the log's
checkpoints have to be signed by witnesses, who have seen it grow and never change:
so that it is the same log that others are shown.

Exit codes: 0 all is well; 1 a signature, a statement or a link is bad; 2 wrong
usage, or no key.`,
		Example: `  cavra verify evidence.json --key agent.pem
  cavra verify export.json --key keys.json --complete
  cavra verify export.json --key keys.json --log-key cavra.local/log+1a2b3c4d+AY…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return verify(cmd, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "`FILE` with a public key that you trust: PEM, or an export; may be given again")
	f.BoolVar(&o.trustEmbedded, "trust-embedded-keys-unsafe", false, "use the keys that FILE itself carries: this shows integrity, not authenticity")
	f.StringVar(&o.logKey, "log-key", "", "the transparency log's public `KEY`, or a file that holds it: fail unless every statement is proven to be in that log")
	f.StringArrayVar(&o.witnessKeys, "witness-key", nil, "a witness's public `KEY`, or a file that holds it: fail unless it has signed the log's checkpoints; may be given again")
	f.IntVar(&o.witnesses, "witnesses", 0, "how many of the witnesses have to have signed (default all of those given)")
	f.BoolVar(&o.requireUnitary, "complete", false, "fail unless every chain is whole from its first statement on, and the export ends with this file")
	return cmd
}

func verify(cmd *cobra.Command, o verifyOptions, path string) error {
	evidence, err := readExport(path)
	if err != nil {
		return err
	}
	if len(evidence.envelopes) == 0 {
		return fmt.Errorf("verify %s: there is no envelope in it", path)
	}
	keys, embedded, err := trusted(o, evidence)
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	log, err := logKey(o.logKey)
	if err != nil {
		return err
	}
	if log != "" && len(evidence.logs) == 0 {
		return &exitError{exitFindings, fmt.Errorf("verify %s: %w", path, errNoLog)}
	}
	links, ring, bad := open(evidence.envelopes, keys)
	slices.SortStableFunc(links, compareLinks)
	bad += place(links)
	proofs := prove(evidence, log)
	witnessed, err := o.witnessed(evidence)
	if err != nil {
		return err
	}
	proofs.problems = append(proofs.problems, witnessed...)
	inLog, unproven := proofs.logged(evidence, log != "", links)
	bad += unproven
	if err := printLinks(cmd.OutOrStdout(), links, ring, proofs); err != nil {
		return err
	}
	early := 0
	for _, l := range links {
		if l.outcome == chain.Early {
			early++
		}
	}
	short := truncated(links)
	if o.requireUnitary {
		bad += early + len(short)
	}
	if o.requireUnitary && evidence.partial {
		bad++
	}
	words := fmt.Sprintf("%d of %d statements verified", len(links)-countBad(links), len(links))
	words += inLog
	if embedded {
		words += "; the keys came from the same file: this shows integrity, not authenticity"
	}
	if early > 0 {
		words += fmt.Sprintf("; %d without a predecessor in this file", early)
	}
	for _, s := range short {
		words += "; " + s
	}
	if evidence.partial {
		words += "; this is one page of an export and more follows it: `cavra-aggregator export` writes all of it"
	}
	words += ".\n"
	if log == "" {
		words += "Whether a key had ended or was revoked when it signed cannot be told without --log-key.\n"
	}
	if _, err := io.WriteString(cmd.OutOrStdout(), words); err != nil {
		return err
	}
	if bad > 0 {
		return &exitError{exitFindings, fmt.Errorf("verify %s: of %d statements, %d are bad, out of place or missing", path, len(links), bad)}
	}
	return nil
}

// trusted returns the keys to verify by, and whether they came with the
// evidence itself.
func trusted(o verifyOptions, evidence *export) (map[predicate.Digest]identity.PublicKey, bool, error) {
	keys := make(map[predicate.Digest]identity.PublicKey)
	for _, f := range o.keys {
		from, err := readKeys(f)
		if err != nil {
			return nil, false, err
		}
		for _, k := range from {
			keys[k.ID()] = k
		}
	}
	if len(keys) > 0 {
		return keys, false, nil
	}
	switch {
	case len(evidence.keys) == 0:
		return nil, false, errors.New("no key: name the agent's public key with --key")
	case !o.trustEmbedded:
		return nil, false, errors.New("its keys are in the same file, and whoever changed the one could change the other: " +
			"name a key that you trust with --key, or accept the file's own with --trust-embedded-keys-unsafe")
	}
	for _, k := range evidence.keys {
		keys[k.ID()] = k
	}
	return keys, true, nil
}

// verified is one envelope and what is known of it.
type verified struct {
	index    int
	envelope attest.Envelope
	keyID    predicate.Digest
	digest   predicate.Digest
	// err says why it is not believed; the rest is then unset.
	err     error
	kind    string
	link    *predicate.Link
	outcome chain.Outcome
	// opens says that it is the first of an epoch and certifies the epoch's key,
	// which is certifies.
	opens     bool
	certifies predicate.Digest
	// last is where the epoch before stood, by the first statement of the next.
	last *predicate.ChainHead
}

// certificate is what a verified first statement of an epoch says of its key.
type certificate struct {
	predicate.SigningKey
	chain string
	// by is the key that signed it.
	by predicate.Digest
}

// keyring is the keys to verify by. It grows: a key that one of them certifies, in
// the first statement of an epoch, is known from then on.
type keyring struct {
	keys         map[predicate.Digest]identity.PublicKey
	certificates map[predicate.Digest]certificate
}

// learn takes on the key that a verified statement certifies.
func (k *keyring) learn(p predicate.Predicate) error {
	e, ok := p.(*predicate.Epoch)
	if !ok || e.Key == nil {
		return nil
	}
	key, err := identity.ParsePublicKey(e.Key.Algorithm, e.Key.PublicKey)
	if err != nil {
		return fmt.Errorf("the key that it certifies: %w", err)
	}
	c := certificate{*e.Key, chainID(&e.Link), e.KeyID}
	if was, ok := k.certificates[key.ID()]; ok && was.chain != c.chain {
		return errors.New("the key that it certifies is certified for another chain in this file too")
	}
	k.keys[key.ID()], k.certificates[key.ID()] = key, c
	return nil
}

// open verifies envelopes, in their order in the file. Whatever order that is, a
// key is known before what it signed is judged.
func open(envelopes [][]byte, keys map[predicate.Digest]identity.PublicKey) (out []verified, ring *keyring, bad int) {
	ring = &keyring{map[predicate.Digest]identity.PublicKey{}, map[predicate.Digest]certificate{}}
	maps.Copy(ring.keys, keys)
	out = make([]verified, len(envelopes))
	for i, raw := range envelopes {
		out[i] = verified{index: i + 1}
		out[i].envelope, out[i].err = attest.Open(raw)
	}
	for learned := true; learned; {
		learned = false
		for i := range out {
			v := &out[i]
			if _, known := ring.keys[v.envelope.KeyID()]; v.err != nil || v.link != nil || !known {
				continue
			}
			v.err = v.open(ring)
			learned = learned || v.opens
		}
	}
	bad = settle(out, ring)
	return out, ring, bad
}

// settle judges verified statements by what the file as a whole says of their
// keys, and counts the bad ones.
func settle(all []verified, ring *keyring) (bad int) {
	// Each key signs for one agent, and all but the openings for one epoch of it.
	agents, chains := map[predicate.Digest]string{}, map[predicate.Digest]string{}
	for i := range all {
		v := &all[i]
		if v.err == nil && v.link == nil {
			v.err = fmt.Errorf("its key %s is none of those given", v.envelope.KeyID())
		}
		if v.err == nil {
			v.err = v.owned(agents, chains)
		}
		if v.err == nil && !v.opens {
			v.err = ring.allows(v)
		}
		if v.err != nil {
			bad++
		}
	}
	return bad
}

func (v *verified) owned(agents, chains map[predicate.Digest]string) error {
	agent, id := v.link.Tenant+"/"+v.link.Agent, chainID(v.link)
	if was, ok := agents[v.keyID]; ok && was != agent {
		return errors.New("its key signed for another agent in this file too")
	}
	agents[v.keyID] = agent
	if v.opens {
		return nil
	}
	if was, ok := chains[v.keyID]; ok && was != id {
		return errors.New("its key signed for another chain in this file too")
	}
	chains[v.keyID] = id
	return nil
}

// allows compares a statement with what its key was certified for.
func (k *keyring) allows(v *verified) error {
	c, ok := k.certificates[v.keyID]
	switch {
	case !ok:
		return nil
	case c.chain != chainID(v.link):
		return errors.New("its key was certified for another chain")
	case v.link.Sequence == 1:
		return fmt.Errorf("the first statement of the epoch is that of key %s, which certified its key", c.by)
	case !c.Covers(v.link.SignedAt):
		return fmt.Errorf("it says that it was signed at %s, and its key was certified from %s to %s", v.link.SignedAt, c.NotBefore, c.NotAfter)
	}
	return nil
}

func (v *verified) open(ring *keyring) error {
	v.keyID, v.digest = v.envelope.KeyID(), v.envelope.Digest()
	payload, err := v.envelope.Verify(ring.keys[v.keyID])
	if err != nil {
		return err
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		return err
	}
	l := p.Place()
	if l.KeyID != v.keyID {
		return errors.New("the statement names another key than the one that signed it")
	}
	e, ok := p.(*predicate.Epoch)
	if v.opens = ok && e.Key != nil; v.opens {
		v.certifies = e.Key.KeyID
	}
	if err := ring.learn(p); err != nil {
		return err
	}
	if ok {
		v.last = e.Last
	}
	v.kind, v.link = predicate.Short(p.PredicateType()), l
	return nil
}

func chainID(l *predicate.Link) string { return fmt.Sprintf("%s/%s/%d", l.Tenant, l.Agent, l.Epoch) }

func compareLinks(a, b verified) int {
	switch {
	case a.err != nil || b.err != nil:
		return cmp.Or(cmp.Compare(boolInt(a.err != nil), boolInt(b.err != nil)), cmp.Compare(a.index, b.index))
	}
	return cmp.Or(
		cmp.Compare(a.link.Tenant, b.link.Tenant), cmp.Compare(a.link.Agent, b.link.Agent),
		cmp.Compare(a.link.Epoch, b.link.Epoch), cmp.Compare(a.link.Sequence, b.link.Sequence), cmp.Compare(a.digest, b.digest))
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// known is what has been placed so far of one chain.
type known struct{ at, before map[uint64][]predicate.Digest }

func (k known) At(n uint64) ([]predicate.Digest, error)     { return k.at[n], nil }
func (k known) Before(n uint64) ([]predicate.Digest, error) { return k.before[n], nil }

// place says where each verified statement stands among those in the file, and
// counts the forks.
func place(links []verified) (forked int) {
	chains := make(map[string]known)
	for i := range links {
		v := &links[i]
		if v.err != nil {
			continue
		}
		id := chainID(v.link)
		k, ok := chains[id]
		if !ok {
			k = known{at: map[uint64][]predicate.Digest{}, before: map[uint64][]predicate.Digest{}}
			chains[id] = k
		}
		// What is known is in memory, so looking it up cannot fail.
		v.outcome, v.err = chain.Place(k, v.link, v.digest)
		if v.outcome == chain.Forked {
			forked++
		}
		if v.outcome != chain.Replayed {
			k.at[v.link.Sequence] = append(k.at[v.link.Sequence], v.digest)
			k.before[v.link.Sequence] = append(k.before[v.link.Sequence], v.link.Previous)
		}
	}
	return forked
}

// truncated names the epochs that end before where the next one says that they
// stood.
func truncated(links []verified) (out []string) {
	there := map[string]bool{}
	at := func(l *predicate.Link, epoch, sequence uint64, digest predicate.Digest) string {
		return fmt.Sprintf("%s/%s/%d/%d/%s", l.Tenant, l.Agent, epoch, sequence, digest)
	}
	for _, v := range links {
		if v.err == nil {
			there[at(v.link, v.link.Epoch, v.link.Sequence, v.digest)] = true
		}
	}
	for _, v := range links {
		if v.err == nil && v.last != nil && !there[at(v.link, v.last.Epoch, v.last.Sequence, v.last.Digest)] {
			out = append(out, fmt.Sprintf("epoch %d is not here up to statement %d, where epoch %d says that it stood", v.last.Epoch, v.last.Sequence, v.link.Epoch))
		}
	}
	return out
}

func countBad(links []verified) (n int) {
	for _, l := range links {
		if l.err != nil {
			n++
		}
	}
	return n
}

// outcomeWords say what an outcome means here.
var outcomeWords = map[chain.Outcome]string{
	chain.Linked:   "follows its predecessor",
	chain.Early:    "its predecessor is not in this file",
	chain.Replayed: "the same statement again",
	chain.Forked:   "FORK: another statement stands in its place, or its predecessor is another",
}

// describe names the key of a statement's epoch, and what certifies it.
func (k *keyring) describe(v *verified, log proven) string {
	for id, c := range k.certificates {
		if c.chain != chainID(v.link) {
			continue
		}
		until := ""
		if c.NotAfter != nil {
			until = " until " + c.NotAfter.String()
		}
		return fmt.Sprintf("key %s  certified by %s%s%s", id, c.by, until, log.status(id))
	}
	return "key " + string(v.keyID) + log.status(v.keyID)
}

func printLinks(w io.Writer, links []verified, ring *keyring, log proven) error {
	var b strings.Builder
	last := ""
	for _, l := range links {
		if l.err != nil {
			fmt.Fprintf(&b, "BAD  envelope %d: %v\n", l.index, l.err)
			continue
		}
		if id := chainID(l.link); id != last {
			last = id
			fmt.Fprintf(&b, "tenant %s  agent %s  epoch %d  %s\n", l.link.Tenant, l.link.Agent, l.link.Epoch, ring.describe(&l, log))
		}
		words := outcomeWords[l.outcome]
		if l.outcome == chain.Linked && l.link.Sequence == 1 {
			words = "the first of its chain"
		}
		fmt.Fprintf(&b, "  %6d  %-9s  %s  %s  %s\n", l.link.Sequence, l.kind, l.link.SignedAt, l.digest, words)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
