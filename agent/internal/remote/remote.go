// Package remote takes what an aggregator sets on this agent, within what the
// installation's own configuration gives.
//
// It guarantees that nothing is taken that the key does not sign which enrolment
// has given, that is meant for somebody else, has ended, or is older than what was
// taken before, over restarts too; that a document is taken whole or not at all;
// that it makes the agent take no more of the machine than its own configuration
// says, and decides nothing of what is scanned, sent or trusted; and that what was
// refused is told.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/remoteconfig"
)

// File is where an agent's folder keeps what was taken.
const File = "pushed.json"

const maxFile = 64 << 10

// Config says whose settings are to be kept.
type Config struct {
	Dir           string
	Tenant, Agent string
	// Key is the aggregator's for configurations, PKIX DER; empty where enrolment
	// gave none.
	Key []byte
	// Local is the installation's own configuration.
	Local config.Config
	Log   *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// kept is the file's content.
type kept struct {
	// Key is the one that signed: what another aggregator has said counts for
	// nothing.
	Key predicate.Digest `json:"key"`
	// Version is the highest that was taken.
	Version uint64 `json:"version"`
	// Envelope is the document in use.
	Envelope []byte                          `json:"envelope,omitempty"`
	Refused  *predicate.RefusedConfiguration `json:"refused,omitempty"`
}

// Remote is what is set on one agent. It is safe for concurrent use.
type Remote struct {
	cfg   Config
	key   identity.PublicKey
	takes bool

	mu      sync.Mutex
	kept    kept
	taken   remoteconfig.Document
	merged  config.Config
	changed chan struct{}
}

// Open reads what was taken before, and believes it no more than the first time.
func Open(ctx context.Context, cfg Config) (*Remote, error) {
	if cfg.Dir == "" || cfg.Tenant == "" || cfg.Agent == "" || cfg.Log == nil {
		return nil, errors.New("remote configuration: folder, tenant, agent and logger are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Remote{cfg: cfg, merged: cfg.Local, changed: make(chan struct{})}
	if cfg.Local.RemoteConfig != config.RemoteOn {
		return r, nil
	}
	if len(cfg.Key) == 0 {
		cfg.Log.WarnContext(ctx, "remote_config is on, but this agent was enrolled without the aggregator's key for it: enrol it anew")
		return r, nil
	}
	var err error
	if r.key, err = identity.ParsePublicKey(predicate.Ed25519, cfg.Key); err != nil {
		return nil, fmt.Errorf("remote configuration: the aggregator's key: %w", err)
	}
	r.takes = true
	return r, r.recall(ctx)
}

// recall takes over what an earlier run has taken.
func (r *Remote) recall(ctx context.Context) error {
	b, err := diskio.ReadFile(filepath.Join(r.cfg.Dir, File), maxFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		// Without it an older document could be taken again.
		return fmt.Errorf("read what the aggregator has set, %s: %w (delete the file to begin anew)", filepath.Join(r.cfg.Dir, File), err)
	}
	if k.Key != r.key.ID() {
		return nil
	}
	r.kept = k
	if len(k.Envelope) == 0 {
		return nil
	}
	d, merged, err := r.open(k.Envelope)
	if err != nil {
		r.cfg.Log.WarnContext(ctx, "what the aggregator had set holds no more: the agent's own configuration does", slog.Any("error", err))
		r.kept.Envelope = nil
		return nil
	}
	r.taken, r.merged = d, merged
	return nil
}

func (r *Remote) open(envelope []byte) (remoteconfig.Document, config.Config, error) {
	h := remoteconfig.Holder{Tenant: r.cfg.Tenant, Agent: r.cfg.Agent, Key: r.key, Version: r.kept.Version}
	d, err := remoteconfig.Open(envelope, h, r.cfg.Now())
	if err != nil {
		return remoteconfig.Document{}, config.Config{}, err
	}
	merged, err := merge(r.cfg.Local, d)
	return d, merged, err
}

// merge puts a document's settings over the installation's own, as far as those
// let it.
func merge(local config.Config, d remoteconfig.Document) (config.Config, error) {
	refuse := func(format string, args ...any) (config.Config, error) {
		return config.Config{}, remoteconfig.Refuse(predicate.ConfigurationOutOfBounds, d.Version, format, args...)
	}
	out, set := local, d.Settings
	for _, span := range []struct {
		to  *config.Duration
		set remoteconfig.Span
	}{{&out.Interval, set.Interval}, {&out.Heartbeat, set.Heartbeat}, {&out.Inventory, set.Inventory}, {&out.CheckIn, set.CheckIn}} {
		if span.set != 0 {
			*span.to = config.Duration(span.set)
		}
	}
	if set.Jobs > local.Jobs {
		return refuse("jobs: %d, and the installation gives %d", set.Jobs, local.Jobs)
	}
	if set.SpoolMaxBytes > local.Spool.MaxBytes {
		return refuse("spool_max_bytes: %d, and the installation gives %d", set.SpoolMaxBytes, local.Spool.MaxBytes)
	}
	if set.Jobs > 0 {
		out.Jobs = set.Jobs
	}
	if set.SpoolMaxBytes > 0 {
		out.Spool.MaxBytes = set.SpoolMaxBytes
	}
	if err := out.Validate(); err != nil {
		return refuse("%w", err)
	}
	return out, nil
}

// Settings are those that hold now, and a channel that is closed when others do,
// or when some were refused.
func (r *Remote) Settings() (config.Config, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	return r.merged, r.changed
}

// expire goes back to the installation's own configuration once what was set has
// ended.
func (r *Remote) expire() {
	if r.taken.Version > 0 && !r.cfg.Now().Before(r.taken.NotAfter.Time()) {
		r.use(remoteconfig.Document{}, r.cfg.Local)
	}
}

func (r *Remote) use(d remoteconfig.Document, merged config.Config) {
	r.taken, r.merged = d, merged
	r.notify()
}

// notify tells whoever waits. The caller holds mu.
func (r *Remote) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Have says whether this agent takes configurations, and which one it has.
func (r *Remote) Have() (takes bool, version uint64, end time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	if r.taken.Version == 0 {
		return r.takes, 0, time.Time{}
	}
	return r.takes, r.taken.Version, r.taken.NotAfter.Time()
}

// Standing is what a heartbeat says of it.
func (r *Remote) Standing() *predicate.Configuration {
	takes, version, _ := r.Have()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &predicate.Configuration{Remote: takes, Version: version}
	if r.kept.Refused != nil {
		refused := *r.kept.Refused
		out.Refused = &refused
	}
	return out
}

// Take takes a document or refuses it. What it made of it, Standing says; an error
// is the disk's, and nothing has changed then.
func (r *Remote) Take(ctx context.Context, envelope []byte) error {
	if !r.takes {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d, merged, err := r.open(envelope)
	var why *remoteconfig.Refusal
	switch {
	case errors.As(err, &why):
		return r.refuse(ctx, why)
	case err != nil:
		return err
	}
	next := kept{Key: r.key.ID(), Version: d.Version, Envelope: envelope}
	if err := r.save(next); err != nil {
		return err
	}
	if d.Version != r.taken.Version {
		r.cfg.Log.InfoContext(ctx, "the aggregator has set something on this agent", slog.Uint64("version", d.Version), slog.Any("settings", d.Settings))
	}
	r.kept = next
	r.use(d, merged)
	return nil
}

// refuse remembers why a document was not taken, until one is.
func (r *Remote) refuse(ctx context.Context, why *remoteconfig.Refusal) error {
	refused := predicate.RefusedConfiguration{Version: why.Version, Reason: why.Reason}
	if r.kept.Refused != nil && *r.kept.Refused == refused {
		return nil
	}
	next := r.kept
	next.Key, next.Refused = r.key.ID(), &refused
	if err := r.save(next); err != nil {
		return err
	}
	r.kept = next
	r.notify()
	r.cfg.Log.WarnContext(ctx, "a configuration from the aggregator was refused", slog.Any("error", why))
	return nil
}

func (r *Remote) save(k kept) error {
	b, err := json.MarshalIndent(k, "", "  ")
	if err == nil {
		err = diskio.WriteFile(diskio.OS{}, filepath.Join(r.cfg.Dir, File), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what the aggregator has set: %w", err)
	}
	return nil
}
