// Package row is the shape of what the aggregator keeps: one struct for a row of
// each table of migrations/0001_statements.sql, whose comments say what the
// columns mean. It holds no behaviour beyond the counting of rows, so that what
// makes rows and what stores them share a type and nothing else.
//
// A digest is written as its 64 hexadecimal digits, an artifact's as Artifact says,
// and a name plain or as "hmac-sha256:…". Times that a statement gives are within what the column can
// hold, see Time.
package row

import (
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// ZeroDigest fills a digest column where there is none.
const ZeroDigest = "0000000000000000000000000000000000000000000000000000000000000000"

// Receipt says what became of a message, or of a range of offsets whose batch
// nobody could read.
type Receipt struct {
	Topic      string    `ch:"topic"`
	Partition  int32     `ch:"partition"`
	Offset     int64     `ch:"offset"`
	LastOffset int64     `ch:"last_offset"`
	Outcome    string    `ch:"outcome"`
	Reason     string    `ch:"reason"`
	Tenant     string    `ch:"tenant"`
	Agent      string    `ch:"agent"`
	Epoch      uint64    `ch:"epoch"`
	Sequence   uint64    `ch:"sequence"`
	Digest     string    `ch:"digest"`
	Bytes      uint64    `ch:"bytes"`
	ReceivedAt time.Time `ch:"received_at"`
}

// MaxQuarantined bounds what is kept of a refused message, in bytes.
const MaxQuarantined = 64 << 10

// Quarantined is a refused message, for a person to look at.
type Quarantined struct {
	Tenant     string    `ch:"tenant"`
	Topic      string    `ch:"topic"`
	Partition  int32     `ch:"partition"`
	Offset     int64     `ch:"offset"`
	LastOffset int64     `ch:"last_offset"`
	Reason     string    `ch:"reason"`
	Detail     string    `ch:"detail"`
	Digest     string    `ch:"digest"`
	Bytes      uint64    `ch:"bytes"`
	Message    []byte    `ch:"message"`
	ReceivedAt time.Time `ch:"received_at"`
}

// Statement is an accepted statement with the envelope that is its evidence.
type Statement struct {
	Tenant     string    `ch:"tenant"`
	Agent      string    `ch:"agent"`
	Epoch      uint64    `ch:"epoch"`
	Sequence   uint64    `ch:"sequence"`
	Digest     string    `ch:"digest"`
	Previous   string    `ch:"previous"`
	KeyID      string    `ch:"key_id"`
	Type       string    `ch:"type"`
	Outcome    string    `ch:"outcome"`
	SignedAt   time.Time `ch:"signed_at"`
	ReceivedAt time.Time `ch:"received_at"`
	Topic      string    `ch:"topic"`
	Partition  int32     `ch:"partition"`
	Offset     int64     `ch:"offset"`
	Envelope   []byte    `ch:"envelope"`
	// Log is the transparency log that has the statement, by its id, and LogIndex
	// its entry there. Log is empty where there is none.
	Log      string `ch:"log"`
	LogIndex uint64 `ch:"log_index"`
}

// Scan is a scan statement in numbers.
type Scan struct {
	Tenant          string    `ch:"tenant"`
	Artifact        string    `ch:"artifact"`
	Statement       string    `ch:"statement"`
	Agent           string    `ch:"agent"`
	Epoch           uint64    `ch:"epoch"`
	Sequence        uint64    `ch:"sequence"`
	Kind            string    `ch:"kind"`
	Format          string    `ch:"format"`
	Size            uint64    `ch:"size"`
	Files           uint64    `ch:"files"`
	Verdict         string    `ch:"verdict"`
	Score           uint8     `ch:"score"`
	Complete        bool      `ch:"complete"`
	BytesParsed     uint64    `ch:"bytes_parsed"`
	BytesInert      uint64    `ch:"bytes_inert"`
	BytesUnread     uint64    `ch:"bytes_unread"`
	Findings        uint64    `ch:"findings"`
	FindingsOmitted uint64    `ch:"findings_omitted"`
	Imports         uint64    `ch:"imports"`
	ImportsOmitted  uint64    `ch:"imports_omitted"`
	RulesetVersion  string    `ch:"ruleset_version"`
	RulesetDigest   string    `ch:"ruleset_digest"`
	Sandbox         []string  `ch:"sandbox"`
	ScannedAt       time.Time `ch:"scanned_at"`
	ReceivedAt      time.Time `ch:"received_at"`
}

// Finding is a finding of a scan statement.
type Finding struct {
	Tenant     string    `ch:"tenant"`
	Artifact   string    `ch:"artifact"`
	Rule       string    `ch:"rule"`
	Location   string    `ch:"location"`
	Statement  string    `ch:"statement"`
	Class      string    `ch:"class"`
	Severity   string    `ch:"severity"`
	Count      uint64    `ch:"count"`
	ScannedAt  time.Time `ch:"scanned_at"`
	ReceivedAt time.Time `ch:"received_at"`
}

// Import is an import of a scan statement.
type Import struct {
	Tenant     string    `ch:"tenant"`
	Artifact   string    `ch:"artifact"`
	Module     string    `ch:"module"`
	Name       string    `ch:"name"`
	How        string    `ch:"how"`
	Judged     string    `ch:"judged"`
	Statement  string    `ch:"statement"`
	ScannedAt  time.Time `ch:"scanned_at"`
	ReceivedAt time.Time `ch:"received_at"`
}

// Inventory is one part of an inventory round.
type Inventory struct {
	Tenant     string    `ch:"tenant"`
	Agent      string    `ch:"agent"`
	Epoch      uint64    `ch:"epoch"`
	Sequence   uint64    `ch:"sequence"`
	Registry   string    `ch:"registry"`
	Root       string    `ch:"root"`
	Round      string    `ch:"round"`
	Part       uint32    `ch:"part"`
	Parts      uint32    `ch:"parts"`
	Complete   bool      `ch:"complete"`
	References uint64    `ch:"references"`
	Statement  string    `ch:"statement"`
	ListedAt   time.Time `ch:"listed_at"`
	ReceivedAt time.Time `ch:"received_at"`
}

// Reference is a reference of an inventory round.
type Reference struct {
	Tenant     string    `ch:"tenant"`
	Agent      string    `ch:"agent"`
	Registry   string    `ch:"registry"`
	Root       string    `ch:"root"`
	Name       string    `ch:"name"`
	Version    string    `ch:"version"`
	Path       string    `ch:"path"`
	Artifact   string    `ch:"artifact"`
	Bundle     string    `ch:"bundle"`
	Size       uint64    `ch:"size"`
	Problem    string    `ch:"problem"`
	Round      string    `ch:"round"`
	Statement  string    `ch:"statement"`
	ListedAt   time.Time `ch:"listed_at"`
	ReceivedAt time.Time `ch:"received_at"`
}

// Plugin is a plugin that an agent runs.
type Plugin struct {
	Name    string `ch:"name"`
	Version string `ch:"version"`
	Digest  string `ch:"digest"`
}

// AgentReport is a heartbeat, gap or epoch statement.
type AgentReport struct {
	Tenant          string     `ch:"tenant"`
	Agent           string     `ch:"agent"`
	Epoch           uint64     `ch:"epoch"`
	Sequence        uint64     `ch:"sequence"`
	Statement       string     `ch:"statement"`
	Type            string     `ch:"type"`
	AgentVersion    string     `ch:"agent_version"`
	RulesetVersion  string     `ch:"ruleset_version"`
	Sandbox         []string   `ch:"sandbox"`
	Plugins         []Plugin   `ch:"plugins"`
	SpoolStatements uint64     `ch:"spool_statements"`
	SpoolBytes      uint64     `ch:"spool_bytes"`
	StartedAt       time.Time  `ch:"started_at"`
	LastRoundAt     *time.Time `ch:"last_round_at"`
	GapCause        string     `ch:"gap_cause"`
	GapFrames       uint64     `ch:"gap_frames"`
	GapBytes        uint64     `ch:"gap_bytes"`
	EpochCause      string     `ch:"epoch_cause"`
	Privacy         string     `ch:"privacy"`
	SignedAt        time.Time  `ch:"signed_at"`
	ReceivedAt      time.Time  `ch:"received_at"`
}

// Batch is all that one plan adds, in the order of its offsets.
type Batch struct {
	Receipts     []Receipt
	Quarantine   []Quarantined
	Statements   []Statement
	Scans        []Scan
	Findings     []Finding
	Imports      []Import
	Inventories  []Inventory
	References   []Reference
	AgentReports []AgentReport
}

// Append adds what other holds.
func (b *Batch) Append(other *Batch) {
	b.Receipts = append(b.Receipts, other.Receipts...)
	b.Quarantine = append(b.Quarantine, other.Quarantine...)
	b.Statements = append(b.Statements, other.Statements...)
	b.Scans = append(b.Scans, other.Scans...)
	b.Findings = append(b.Findings, other.Findings...)
	b.Imports = append(b.Imports, other.Imports...)
	b.Inventories = append(b.Inventories, other.Inventories...)
	b.References = append(b.References, other.References...)
	b.AgentReports = append(b.AgentReports, other.AgentReports...)
}

// Rows counts the rows of all tables.
func (b *Batch) Rows() int {
	return len(b.Receipts) + len(b.Quarantine) + len(b.Statements) + len(b.Scans) + len(b.Findings) +
		len(b.Imports) + len(b.Inventories) + len(b.References) + len(b.AgentReports)
}

// latest is the last moment that a DateTime64(3) column holds; a statement may
// name one up to the year 9999.
var latest = time.Date(2299, 12, 31, 23, 59, 59, 999e6, time.UTC)

// Time is a statement's time as a column holds it: later than the year 2299, it
// is that year's end. The envelope has what was said.
func Time(t predicate.Time) time.Time {
	if u := t.Time(); u.Before(latest) {
		return u
	}
	return latest
}

// Name is a statement's name as a column holds it.
func Name(n predicate.Name) string {
	if n.Keyed != "" {
		return n.Keyed
	}
	return n.Plain
}

// Artifact is the digest of an artifact or a bundle as a column holds it: 64
// characters, a plain digest as its hexadecimal digits, and a keyed one in the
// letters g to v instead of 0 to f, so that the two are never taken for each
// other.
func Artifact(d predicate.Digest) string {
	if d == "" {
		return ZeroDigest
	}
	if !d.Keyed() {
		return d.Hex()
	}
	b := []byte(d.Hex())
	for i, c := range b {
		b[i] = keyedDigits[strings.IndexByte(plainDigits, c)]
	}
	return string(b)
}

const plainDigits, keyedDigits = "0123456789abcdef", "ghijklmnopqrstuv"

// ArtifactDigest reads what Artifact has written; all zeros, and anything else,
// stand for none.
func ArtifactDigest(column string) predicate.Digest {
	d := predicate.Digest("sha256:" + column)
	if column != "" && strings.IndexByte(keyedDigits, column[0]) >= 0 {
		b := []byte(column)
		for i, c := range b {
			at := strings.IndexByte(keyedDigits, c)
			if at < 0 {
				return ""
			}
			b[i] = plainDigits[at]
		}
		d = predicate.Digest("hmac-sha256:" + string(b))
	}
	if d == predicate.ZeroDigest || d.ValidateArtifact() != nil {
		return ""
	}
	return d
}
