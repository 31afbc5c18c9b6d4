package serve

import (
	"encoding/json"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// The documents of the API: what it says and what the page shows are the same.

// Posture is one tenant's posture at a moment.
type Posture struct {
	Tenant string    `json:"tenant" doc:"The tenant that the token belongs to."`
	AsOf   time.Time `json:"as_of" doc:"When this was computed."`
	// Score is null when there is nothing to judge.
	Score           *float64         `json:"score" nullable:"true" minimum:"0" maximum:"100" doc:"See score_definition; null when there is nothing to judge."`
	ScoreDefinition string           `json:"score_definition"`
	Artifacts       ArtifactCounts   `json:"artifacts" doc:"Files that something points to now, by the verdict of their latest scan."`
	References      ReferenceCounts  `json:"references" doc:"Places that stand now."`
	Exposures       SeverityCounts   `json:"exposures" doc:"Open exposures by severity."`
	Agents          AgentCounts      `json:"agents"`
	Statements      StatementOutcome `json:"statements" doc:"Messages that arrived, by outcome; every offset of the topic once."`
}

// ArtifactCounts counts artifacts by verdict.
type ArtifactCounts struct {
	Total      uint64 `json:"total"`
	Pass       uint64 `json:"pass"`
	Warn       uint64 `json:"warn"`
	Fail       uint64 `json:"fail"`
	Error      uint64 `json:"error"`
	Unassessed uint64 `json:"unassessed"`
}

// ReferenceCounts counts references.
type ReferenceCounts struct {
	Total      uint64 `json:"total"`
	Unreadable uint64 `json:"unreadable"`
}

// SeverityCounts counts by severity.
type SeverityCounts struct {
	Total    uint64 `json:"total"`
	Critical uint64 `json:"critical"`
	High     uint64 `json:"high"`
	Medium   uint64 `json:"medium"`
	Low      uint64 `json:"low"`
	Info     uint64 `json:"info"`
}

// AgentCounts counts agents by status.
type AgentCounts struct {
	Total   uint64 `json:"total"`
	Online  uint64 `json:"online"`
	Stale   uint64 `json:"stale" doc:"Nothing has come for three of their heartbeats."`
	Silent  uint64 `json:"silent" doc:"Nothing has come for a day."`
	Never   uint64 `json:"never"`
	Revoked uint64 `json:"revoked"`
}

// StatementOutcome counts messages by what became of them.
type StatementOutcome struct {
	Linked   uint64 `json:"linked"`
	Early    uint64 `json:"early"`
	Forked   uint64 `json:"forked"`
	Replayed uint64 `json:"replayed"`
	Refused  uint64 `json:"refused"`
}

// Artifact is a digest that something points to now, and its latest scan.
type Artifact struct {
	Digest     predicate.Digest `json:"digest" pattern:"^(hmac-)?sha256:[0-9a-f]{64}$" doc:"The SHA-256 of its bytes. Of a small file and of a bundle it is a keyed digest, which cavra resolve turns back for those who hold the key."`
	Kind       string           `json:"kind" enum:"file,bundle," doc:"Empty before the first scan."`
	Format     string           `json:"format"`
	Size       uint64           `json:"size" doc:"In bytes; rounded up where the digest is keyed."`
	Files      uint64           `json:"files" doc:"Number of files of a bundle."`
	Verdict    string           `json:"verdict" enum:"pass,warn,fail,error,unassessed"`
	Score      uint8            `json:"score" minimum:"0" maximum:"100" doc:"Risk score: that of the worst rule."`
	Coverage   Coverage         `json:"coverage"`
	Findings   uint64           `json:"findings"`
	Imports    uint64           `json:"imports"`
	References uint64           `json:"references" doc:"Places that point to it now."`
	Ruleset    string           `json:"ruleset_version"`
	Agent      string           `json:"agent"`
	Statement  predicate.Digest `json:"statement,omitempty" doc:"The scan statement that is the evidence."`
	FirstSeen  time.Time        `json:"first_seen"`
	ScannedAt  *time.Time       `json:"scanned_at,omitempty"`
}

// Coverage accounts for the artifact's bytes.
type Coverage struct {
	Complete    bool   `json:"complete"`
	BytesTotal  uint64 `json:"bytes_total"`
	BytesParsed uint64 `json:"bytes_parsed"`
	BytesInert  uint64 `json:"bytes_inert"`
	BytesUnread uint64 `json:"bytes_unread"`
}

// ArtifactList is a page of artifacts, the worst first.
type ArtifactList struct {
	Artifacts []Artifact `json:"artifacts"`
	Next      string     `json:"next,omitempty" doc:"Give it as after= for the next page; absent on the last."`
}

// ArtifactDetail is an artifact with what was found and where it lies.
type ArtifactDetail struct {
	Artifact
	FoundRules     []Finding          `json:"found"`
	ImportList     []Import           `json:"import_list"`
	ReferenceList  []Reference        `json:"reference_list" doc:"At most 1,000."`
	ScanStatements []predicate.Digest `json:"scan_statements" doc:"The latest first, at most 100."`
}

// Finding is a rule's result, with what the rule catalogue says of it.
type Finding struct {
	Rule        string   `json:"rule"`
	Location    string   `json:"location"`
	Class       string   `json:"class"`
	Severity    string   `json:"severity" enum:"info,low,medium,high,critical"`
	Count       uint64   `json:"count"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Fix         string   `json:"fix"`
	References  []string `json:"references"`
}

// Import is a name that loading could resolve. Keyed names read "hmac-sha256:…".
type Import struct {
	Module string `json:"module"`
	Name   string `json:"name"`
	How    string `json:"how"`
	Judged string `json:"judged" enum:"harmless,unknown,dangerous"`
}

// Reference is a place that points to an artifact now.
type Reference struct {
	Agent     string           `json:"agent"`
	Registry  string           `json:"registry"`
	Root      string           `json:"root"`
	Name      string           `json:"name,omitempty"`
	Version   string           `json:"version,omitempty"`
	Path      string           `json:"path"`
	Artifact  predicate.Digest `json:"artifact,omitempty"`
	Bundle    predicate.Digest `json:"bundle,omitempty"`
	Problem   string           `json:"problem,omitempty"`
	FirstSeen time.Time        `json:"first_seen"`
	LastSeen  time.Time        `json:"last_seen"`
}

// Exposure is a finding at a reference.
type Exposure struct {
	Agent     string           `json:"agent"`
	Registry  string           `json:"registry"`
	Root      string           `json:"root"`
	Name      string           `json:"name,omitempty"`
	Version   string           `json:"version,omitempty"`
	Path      string           `json:"path"`
	Artifact  predicate.Digest `json:"artifact,omitempty"`
	Rule      string           `json:"rule"`
	Title     string           `json:"title"`
	Location  string           `json:"location"`
	Class     string           `json:"class"`
	Severity  string           `json:"severity" enum:"info,low,medium,high,critical"`
	Status    string           `json:"status" enum:"open,resolved"`
	Reopened  bool             `json:"reopened"`
	FirstSeen time.Time        `json:"first_seen"`
	LastSeen  time.Time        `json:"last_seen"`
}

// ExposureList is a page of exposures, open ones first, by falling severity.
type ExposureList struct {
	Exposures []Exposure `json:"exposures"`
	Next      uint32     `json:"next,omitempty" doc:"Give it as offset= for the next page; absent on the last."`
}

// Agent is an agent as it stands, by its chains and by its last heartbeat.
type Agent struct {
	ID              string           `json:"id"`
	Name            string           `json:"name"`
	Status          string           `json:"status" enum:"online,stale,silent,never,revoked"`
	Troubles        []Trouble        `json:"troubles" doc:"What is wrong with it, the worst first."`
	Version         string           `json:"version,omitempty"`
	Ruleset         string           `json:"ruleset_version,omitempty"`
	Plugins         []Plugin         `json:"plugins"`
	Privacy         string           `json:"privacy" enum:"strict,names,full-local," doc:"What it lets leave: strict keys names, names sends them in the clear, full-local sends no reports. Empty from an agent that does not say."`
	Sandbox         []string         `json:"sandbox" doc:"Layers in force around its plugins."`
	SandboxMissing  []string         `json:"sandbox_missing" doc:"Layers that should be."`
	SpoolStatements uint64           `json:"spool_statements" doc:"Signed and not yet acknowledged."`
	SpoolBytes      uint64           `json:"spool_bytes"`
	IntervalSeconds uint64           `json:"interval_seconds,omitempty" doc:"Time between its heartbeats; absent where it does not say."`
	Configuration   *AgentConfig     `json:"configuration,omitempty" doc:"Absent where it does not say."`
	KeyID           predicate.Digest `json:"key_id"`
	KeyAuthority    predicate.Digest `json:"key_authority,omitempty" doc:"The key that certified it: one in a KMS or a token, or the one before."`
	KeyEndsAt       *time.Time       `json:"key_ends_at,omitempty" doc:"When its certificate ends; absent for a key that lasts until another follows."`
	Epoch           uint64           `json:"epoch" doc:"How many keys it has had, this one included."`
	EnrolledAt      time.Time        `json:"enrolled_at" doc:"When the key was taken on."`
	StartedAt       *time.Time       `json:"started_at,omitempty"`
	LastSeen        *time.Time       `json:"last_seen,omitempty"`
	LastRound       *time.Time       `json:"last_round,omitempty"`
	LastComplete    *time.Time       `json:"last_complete_round,omitempty" doc:"The end of the last round that could list everything."`
	Statements      uint64           `json:"statements" doc:"Accepted, each once."`
	Replayed        uint64           `json:"replayed" doc:"Ignored and counted."`
	Chains          []Chain          `json:"chains" doc:"One an epoch."`
	Contact         *AgentContact    `json:"contact,omitempty" doc:"Its last call over mutual TLS; absent where there was none."`
}

// Trouble is something that is wrong with an agent.
type Trouble struct {
	Kind     string `json:"kind" enum:"forked,gap,less_isolated,silent,configuration_refused,never_seen,stale,no_complete_round,backlog,programs_differ,configuration_drift,version_differs,key_replaced,cloned,restored,clock_off"`
	Severity string `json:"severity" enum:"info,low,medium,high,critical"`
	Text     string `json:"text"`
}

// Plugin is a program that an agent runs beside it.
type Plugin struct {
	Name    string           `json:"name"`
	Version string           `json:"version"`
	Digest  predicate.Digest `json:"digest"`
	Differs bool             `json:"differs" doc:"Most of the fleet runs another program of this name, or none."`
}

// AgentConfig is how an agent stands to the configurations that are pushed to it.
type AgentConfig struct {
	Remote         bool   `json:"remote" doc:"Whether the installation takes any."`
	Version        uint64 `json:"version" doc:"The one that it runs with; 0 for its own alone."`
	Wanted         uint64 `json:"wanted" doc:"The one that it should run with; 0 for none."`
	Refused        string `json:"refused,omitempty" enum:"too_large,malformed,bad_signature,wrong_tenant,wrong_agent,rolled_back,expired,unknown_setting,local_setting,out_of_bounds" doc:"Why it did not take the last one; absent when it did."`
	RefusedVersion uint64 `json:"refused_version,omitempty" doc:"Which one that was, where its signature said so."`
}

// AgentContact is an agent's last call, and the certificate that it has in use.
type AgentContact struct {
	At        time.Time  `json:"at" doc:"Exact to five minutes."`
	Address   string     `json:"address"`
	ClockSkew float64    `json:"clock_skew_seconds" doc:"How far its clock is ahead."`
	ClockOff  bool       `json:"clock_off" doc:"Whether that is more than two minutes."`
	NotAfter  *time.Time `json:"certificate_not_after,omitempty" doc:"When its certificate ends; absent in lists, and where it has none in use."`
	// Generation counts the agent's certificates.
	Generation uint64 `json:"certificate_generation,omitempty"`
}

// AgentEvent is something odd about an agent or a join token.
type AgentEvent struct {
	Kind      string    `json:"kind" enum:"cloned,restored,clock_skew,token_reused,token_expired_use,retired_certificate,revoked_call"`
	Agent     string    `json:"agent,omitempty" doc:"Absent for a token that has made no agent."`
	Presented string    `json:"presented" doc:"What came, in words."`
	Known     string    `json:"known" doc:"What was known, in words."`
	Count     uint64    `json:"count"`
	FirstAt   time.Time `json:"first_at"`
	LastAt    time.Time `json:"last_at"`
}

// AgentEventList is what is odd, the latest first.
type AgentEventList struct {
	Events  []AgentEvent `json:"events" doc:"At most 1,000 a tenant are kept."`
	Dropped uint64       `json:"dropped" doc:"How many were dropped for newer ones."`
	// UnknownTokens is the operator's: they belong to no tenant.
	UnknownTokens *uint64 `json:"unknown_tokens,omitempty" doc:"How often a join token came that nobody knows; for the aggregator's operator alone."`
}

// Chain is one epoch of an agent's statements.
type Chain struct {
	Epoch        uint64           `json:"epoch"`
	HeadSequence uint64           `json:"head_sequence" doc:"The end of the prefix without a missing link."`
	HeadDigest   predicate.Digest `json:"head_digest,omitempty"`
	Highest      uint64           `json:"highest_sequence"`
	GapCount     uint64           `json:"gap_count" doc:"Ranges of sequences that are missing."`
	Gaps         []Gap            `json:"gaps" doc:"The first of them, at most 100."`
	ForkCount    uint64           `json:"fork_count" doc:"Statements that contradict the chain; both sides are kept."`
	Forks        []Fork           `json:"forks" doc:"The first of them, at most 100."`
}

// Gap is a range of sequences that never came.
type Gap struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Fork is a second statement at a sequence.
type Fork struct {
	Sequence uint64             `json:"sequence"`
	Digests  []predicate.Digest `json:"digests"`
	SeenAt   time.Time          `json:"seen_at"`
}

// AgentList is a page of agents, the worst first, and the fleet that they are of.
type AgentList struct {
	Agents []Agent `json:"agents"`
	Total  uint64  `json:"total" doc:"How many agents the query finds."`
	Next   uint32  `json:"next,omitempty" doc:"Give it as offset= for the next page; absent on the last."`
	Fleet  Fleet   `json:"fleet" doc:"All of the tenant's agents, whatever the query."`
}

// Fleet sums a tenant's agents up.
type Fleet struct {
	Agents     AgentCounts    `json:"agents"`
	Severities SeverityCounts `json:"severities" doc:"Agents by their worst trouble; those with none are not counted."`
	Troubles   []TroubleCount `json:"troubles" doc:"The troubles that there are, the worst first."`
	Versions   []VersionCount `json:"versions" doc:"The versions in use, the most common first."`
}

// TroubleCount counts the agents with a trouble.
type TroubleCount struct {
	Trouble
	Agents uint64 `json:"agents"`
}

// VersionCount counts the agents of a version that run the same programs.
type VersionCount struct {
	Version string   `json:"version"`
	Plugins []Plugin `json:"plugins"`
	Agents  uint64   `json:"agents"`
}

// Refused is a message that was not believed.
type Refused struct {
	Topic      string           `json:"topic"`
	Partition  int32            `json:"partition"`
	Offset     int64            `json:"offset"`
	Reason     string           `json:"reason"`
	Detail     string           `json:"detail"`
	Digest     predicate.Digest `json:"digest" doc:"SHA-256 of the message's bytes."`
	Bytes      uint64           `json:"bytes"`
	ReceivedAt time.Time        `json:"received_at"`
}

// RefusedList is a page of what was refused, the latest first.
type RefusedList struct {
	Refused []Refused `json:"refused"`
	Next    uint32    `json:"next,omitempty" doc:"Give it as offset= for the next page; absent on the last."`
}

// Statement is a stored statement: the envelope is the evidence.
type Statement struct {
	Digest     predicate.Digest `json:"digest"`
	Type       string           `json:"type" enum:"scan,inventory,gap,heartbeat,epoch"`
	Agent      string           `json:"agent"`
	Epoch      uint64           `json:"epoch"`
	Sequence   uint64           `json:"sequence"`
	Previous   predicate.Digest `json:"previous"`
	KeyID      predicate.Digest `json:"key_id"`
	Outcome    string           `json:"outcome" enum:"linked,early,forked" doc:"Its place in the chain when it arrived."`
	SignedAt   time.Time        `json:"signed_at"`
	ReceivedAt time.Time        `json:"received_at"`
	// Payload is the statement itself, for people; Envelope is what is signed.
	Payload  json.RawMessage `json:"payload"`
	Envelope json.RawMessage `json:"envelope" doc:"The DSSE envelope, byte for byte as it arrived."`
}

// Export is a page of evidence that verifies offline: envelopes and the keys
// that signed them.
type Export struct {
	Envelopes []json.RawMessage `json:"envelopes"`
	Keys      []ExportKey       `json:"keys"`
	Logs      []LogProof        `json:"logs,omitempty" doc:"Where the statements stand in the transparency log; absent where there is none."`
	Next      string            `json:"next,omitempty" doc:"Give it as after= for the next page; absent on the last. A page is bounded in bytes as well, so it may be shorter than asked for."`
}

// ExportKey is a public key.
type ExportKey struct {
	KeyID     predicate.Digest    `json:"key_id"`
	Algorithm predicate.Algorithm `json:"algorithm"`
	PublicKey []byte              `json:"public_key" doc:"PKIX DER, in base64."`
}

// LogProof shows that statements stand in a transparency log, against one of its
// checkpoints.
type LogProof struct {
	Key        string     `json:"key" doc:"The log's public key, a verifier key of a signed note."`
	Checkpoint string     `json:"checkpoint" doc:"The log's size and root, signed by it (c2sp.org/tlog-checkpoint)."`
	Entries    []LogEntry `json:"entries"`
	// KeyEvents are of the keys of the agents that signed the statements.
	KeyEvents []LogKeyEvent `json:"key_events,omitempty" doc:"What happened to the keys of the agents whose statements these are, in order."`
}

// LogKeyEvent is the entry of what happened to a key, and its inclusion proof.
type LogKeyEvent struct {
	Entry string   `json:"entry" doc:"The log's entry: the words cavra-key-event, a space, and the event in JSON."`
	Index uint64   `json:"index"`
	Proof [][]byte `json:"proof" doc:"Hashes, in base64, from the leaf up."`
}

// LogEntry is a statement's entry and its inclusion proof (RFC 6962, 2.1.1).
type LogEntry struct {
	Statement predicate.Digest `json:"statement"`
	Index     uint64           `json:"index"`
	Proof     [][]byte         `json:"proof" doc:"Hashes, in base64, from the leaf up."`
}

// LogState is the transparency log as it stands.
type LogState struct {
	Key        string `json:"key" doc:"The log's public key. Keep the one that you first saw."`
	Checkpoint string `json:"checkpoint" doc:"Its size and root, signed. Keep it, and ask later for the proof that the log has only grown."`
}

// LogGrowth proves that the log of an earlier size is the beginning of what it is
// now (RFC 6962, 2.1.2).
type LogGrowth struct {
	LogState
	From  uint64   `json:"from"`
	Proof [][]byte `json:"proof"`
}

// FleetConfig is one version of what an administrator has set on agents.
type FleetConfig struct {
	Version   uint64        `json:"version"`
	Agent     string        `json:"agent,omitempty" doc:"The agent that it is for; absent for all that have none of their own."`
	Settings  FleetSettings `json:"settings"`
	Cleared   bool          `json:"cleared" doc:"What was set before was taken back."`
	CreatedBy string        `json:"created_by"`
	CreatedAt time.Time     `json:"created_at"`
}

// FleetSettings are what can be set on agents; what is left out is the agent's own.
type FleetSettings struct {
	Interval      string `json:"interval,omitempty" maxLength:"32" doc:"Time from one round to the next, as 10m; 10s to 24h."`
	Heartbeat     string `json:"heartbeat,omitempty" maxLength:"32" doc:"Time between two signs of life; 10s to 1h."`
	Inventory     string `json:"inventory,omitempty" maxLength:"32" doc:"How often what stands is told anew; 10s to 168h."`
	CheckIn       string `json:"check_in,omitempty" maxLength:"32" doc:"Time between two calls to the aggregator; 10s to 1h."`
	Jobs          int    `json:"jobs,omitempty" minimum:"0" maximum:"256" doc:"How many artifacts are inspected at a time, at most as many as the agent's own configuration says."`
	SpoolMaxBytes int64  `json:"spool_max_bytes,omitempty" minimum:"0" doc:"What may wait for the broker, at least 64 MiB, and at most as much as the agent's own configuration says."`
}

// FleetConfigList is a page of what was set, the latest first.
type FleetConfigList struct {
	Configurations []FleetConfig `json:"configurations"`
	Next           uint64        `json:"next,omitempty" doc:"Give it as before= for the next page; absent on the last."`
}
