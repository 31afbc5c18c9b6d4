// Package topic fixes how statements travel over Kafka: the topic, its key and
// its headers. Key and headers are for routing and for people: nothing believes
// them, since only the envelope is signed.
package topic

import (
	"github.com/cavra/cavra/schemas/predicate"
)

// Statements is the one topic that agents write: a message is one DSSE
// envelope.
const Statements = "cavra.statements.v1"

// Partitions is the number of partitions that a new Statements topic gets.
const Partitions = 6

// MaxMessage bounds a message's value, in bytes. It is below Kafka's default
// message.max.bytes of 1,048,588, with room for the record's key and headers.
const MaxMessage = 1_000_000

// The headers' names.
const (
	HeaderContentType = "content-type"
	HeaderDigest      = "cavra-digest"
)

// ContentType is the value of HeaderContentType: a DSSE envelope as JSON.
const ContentType = "application/vnd.dsse.envelope.v1+json"

// Key partitions by agent, so that one partition holds an agent's whole chain
// in the order in which it was published.
func Key(tenant, agent string) []byte { return []byte(tenant + "/" + agent) }

// Header is a Kafka message header.
type Header struct{ Key, Value string }

// Headers are those of a message that carries the envelope of the statement d.
func Headers(d predicate.Digest) []Header {
	return []Header{
		{HeaderContentType, ContentType},
		{HeaderDigest, string(d)},
	}
}
