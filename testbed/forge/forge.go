// Package forge writes to an aggregator's topic what an agent would, and what it
// never would: with an enrolled agent's key and login it signs statements at any
// place of a chain, breaks envelopes, and publishes both.
package forge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/testbed/stack"
)

// Author signs for one enrolled agent and publishes with its login.
type Author struct {
	ID  stack.Identity
	Key *identity.Key
	// Head is what Next signs after.
	Head   chain.Head
	writer *kafka.Writer
}

// Signed is an envelope and the statement's digest.
type Signed struct {
	Envelope []byte
	Digest   predicate.Digest
}

// Open takes the identity of an agent's folder. Close the Author.
func Open(a *stack.Agent) (*Author, error) {
	id, err := a.Identity()
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(a.Dir(), id.KeyFile))
	if err != nil {
		return nil, fmt.Errorf("read agent's key: %w", err)
	}
	key, err := identity.ParsePEM(pem)
	if err != nil {
		return nil, err
	}
	mechanism, err := scram.Mechanism(scram.SHA256, id.Kafka.Username, id.Kafka.Password)
	if err != nil {
		return nil, fmt.Errorf("log in to Kafka: %w", err)
	}
	return &Author{ID: id, Key: key, writer: &kafka.Writer{
		Addr: kafka.TCP(id.Kafka.Brokers...), Topic: id.Kafka.Topic, RequiredAcks: kafka.RequireAll,
		BatchTimeout: time.Millisecond, BatchSize: 500, BatchBytes: topic.MaxMessage, Balancer: &kafka.Hash{},
		Transport: &kafka.Transport{SASL: mechanism},
	}}, nil
}

// Close gives back the connections.
func (a *Author) Close() error { return a.writer.Close() }

// Publish sends envelopes in order and returns when they are acknowledged.
func (a *Author) Publish(ctx context.Context, envelopes ...[]byte) error {
	messages := make([]kafka.Message, len(envelopes))
	for i, e := range envelopes {
		messages[i] = kafka.Message{Key: topic.Key(a.ID.Tenant, a.ID.Agent), Value: e}
	}
	if err := a.writer.WriteMessages(ctx, messages...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// signedAt is when everything here is signed; nothing depends on it.
var signedAt = predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

// Link is a place in the agent's chain.
func (a *Author) Link(sequence uint64, previous predicate.Digest) predicate.Link {
	return predicate.Link{
		Tenant: a.ID.Tenant, Agent: a.ID.Agent, KeyID: a.Key.Public().ID(), Epoch: a.ID.Epoch,
		Sequence: sequence, Previous: previous, SignedAt: signedAt,
	}
}

// Scan is a statement about an artifact that the salt stands for.
func Scan(l predicate.Link, salt string) *predicate.Scan {
	tool := predicate.Scanner{Name: "formats", Version: "0.1.0", Digest: predicate.DigestOf([]byte("formats"))}
	return &predicate.Scan{
		Link:     l,
		Artifact: predicate.Artifact{Kind: predicate.File, Digest: predicate.DigestOf([]byte(salt)), Size: 40, Format: "pickle", Files: 1},
		Verdict:  predicate.Pass,
		Coverage: predicate.Coverage{Complete: true, BytesTotal: 40, BytesParsed: 40, Ranges: []predicate.Range{{Kind: predicate.Parsed, End: 40}}},
		Findings: []predicate.Finding{}, Imports: []predicate.Import{}, Scanners: []predicate.Scanner{tool},
		RulesetVersion: "1.0.0", RulesetDigest: predicate.DigestOf([]byte("rules")), Privacy: predicate.Strict,
		Sandbox: []predicate.Layer{predicate.LayerProcess}, StartedAt: signedAt, FinishedAt: signedAt,
	}
}

// Sign signs a statement with the agent's key, whatever the statement says.
func (a *Author) Sign(p predicate.Predicate) (Signed, error) {
	payload, err := predicate.Marshal(p)
	if err != nil {
		return Signed{}, err
	}
	envelope, err := attest.Sign(payload, a.Key)
	if err != nil {
		return Signed{}, err
	}
	return Signed{envelope, attest.Digest(payload)}, nil
}

// Next signs the next statement of the chain and moves Head on: the epoch, then
// scans.
func (a *Author) Next(salt string) (Signed, error) {
	l := a.Link(a.Head.Next())
	var p predicate.Predicate = Scan(l, salt)
	if l.Sequence == 1 {
		p = &predicate.Epoch{Link: l, Cause: predicate.Enrolled, Algorithm: a.Key.Public().Algorithm}
	}
	s, err := a.Sign(p)
	if err != nil {
		return Signed{}, err
	}
	a.Head = chain.Head{Sequence: l.Sequence, Digest: s.Digest}
	return s, nil
}

// errShape says that an envelope does not look as it should.
var errShape = errors.New("flip a bit: the envelope has no payload")

// Flip changes one character of an envelope's payload, so that it stays valid
// base64 and says something else.
func Flip(envelope []byte) ([]byte, error) {
	const before = `"payload":"`
	out := append([]byte{}, envelope...)
	for i := range len(out) - len(before) - 64 {
		if string(out[i:i+len(before)]) != before {
			continue
		}
		at := i + len(before) + 40
		if out[at] == 'A' {
			out[at] = 'B'
		} else {
			out[at] = 'A'
		}
		return out, nil
	}
	return nil, errShape
}
