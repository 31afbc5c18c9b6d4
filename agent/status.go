package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/publish"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

// Status is how an agent stands.
type Status struct {
	Tenant string           `json:"tenant"`
	Agent  string           `json:"agent"`
	Server string           `json:"server"`
	KeyID  predicate.Digest `json:"key_id"`
	// Privacy says which names leave in the clear.
	Privacy predicate.Privacy `json:"privacy"`
	Standing
	// Brokers is BrokersReady, or what stands between this agent and its topic
	// and what to do about it.
	Brokers string `json:"brokers"`
}

// Standing is the part of a Status that only the process which has the spool
// open knows. A running agent writes it down.
type Standing struct {
	// Running is the process that runs over the folder; 0 when none does.
	Running int `json:"running_pid,omitempty"`
	// AsOf is when it stood so.
	AsOf     predicate.Time   `json:"as_of"`
	Epoch    uint64           `json:"epoch"`
	Sequence uint64           `json:"sequence"`
	Head     predicate.Digest `json:"head,omitempty"`
	// Waiting statements are signed and not acknowledged.
	Waiting  uint64 `json:"waiting"`
	Bytes    int64  `json:"disk_bytes"`
	MaxBytes int64  `json:"max_bytes"`
	// FullSince is when scanning began to wait for room in the spool.
	FullSince *predicate.Time `json:"full_since,omitempty"`
	// LastRound is when a running agent's last round ended.
	LastRound *predicate.Time `json:"last_round_at,omitempty"`
}

// BrokersReady says that the brokers take this agent's login and know its topic.
const BrokersReady = "ready"

const (
	// checkTimeout bounds the question to the brokers.
	checkTimeout = 10 * time.Second
	// standingFile is where a running agent writes how it stands, and
	// standingEvery how often it looks whether that has changed.
	standingFile  = "status.json"
	standingEvery = 2 * time.Second
	maxStanding   = 64 << 10
)

// ErrRunning says that a process has an agent's folder in use.
var ErrRunning = errors.New("the folder is in use")

// StatusOf says how the agent of a folder stands, whether one runs over it or
// not, and asks the brokers.
func StatusOf(ctx context.Context, cfg Config) (Status, error) {
	id, err := enrol.Load(cfg.Dir)
	if err != nil {
		return Status{}, err
	}
	out := Status{Tenant: id.Tenant, Agent: id.Agent, Server: id.Server, KeyID: id.KeyID, Privacy: cfg.Settings.Privacy, Brokers: BrokersReady}
	s, err := spoolOf(cfg, id)
	switch {
	case err == nil:
		out.Standing = standingOf(s.Stats())
		err = s.Close()
	case errors.Is(err, diskio.ErrLocked):
		out.Standing, err = readStanding(cfg.Dir)
	}
	if err != nil {
		return Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := publish.Check(ctx, publish.Access(id.Kafka)); err != nil {
		out.Brokers = err.Error()
	}
	return out, nil
}

func standingOf(st spool.Stats) Standing {
	out := Standing{
		AsOf: predicate.At(time.Now()), Epoch: st.Epoch, Sequence: st.Head.Sequence, Head: st.Head.Digest,
		Waiting: st.Statements, Bytes: st.Disk, MaxBytes: st.MaxBytes,
	}
	if !st.FullSince.IsZero() {
		since := predicate.At(st.FullSince)
		out.FullSince = &since
	}
	return out
}

// readStanding reads what the process that has the folder in use has written.
func readStanding(dir string) (Standing, error) {
	b, err := os.ReadFile(filepath.Join(dir, standingFile))
	if errors.Is(err, os.ErrNotExist) {
		return Standing{}, fmt.Errorf("%w by a process that has not yet said how it stands: ask again in a moment", ErrRunning)
	}
	if err == nil && len(b) > maxStanding {
		err = fmt.Errorf("larger than %d bytes", maxStanding)
	}
	var out Standing
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return Standing{}, fmt.Errorf("read status of the running agent: %w", err)
	}
	return out, nil
}

// inUse names the process that has the folder in use.
func inUse(dir string) error {
	if s, readErr := readStanding(dir); readErr == nil && s.Running > 0 {
		return fmt.Errorf("%w: process %d runs an agent over %s: stop it first, or ask it with cavra agent status", ErrRunning, s.Running, dir)
	}
	return fmt.Errorf("%w: another cavra process is at work in %s: try again when it has ended", ErrRunning, dir)
}

// stands writes down how the agent stands, whenever that has changed. It is for
// people who ask: where it cannot be written, the agent goes on.
func (a *Agent) stands(ctx context.Context) error {
	tick := time.NewTicker(standingEvery)
	defer tick.Stop()
	var last Standing
	for {
		now := a.standing()
		now.AsOf, last.AsOf = predicate.Time{}, predicate.Time{}
		if !same(now, last) {
			last = now
			now.AsOf = predicate.At(time.Now())
			if err := a.writeStanding(now); err != nil {
				a.cfg.Log.WarnContext(ctx, "cavra agent status will not see how this agent stands", slog.Any("error", err))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// same compares what is pointed to.
func same(a, b Standing) bool {
	at := func(t *predicate.Time) string {
		if t == nil {
			return ""
		}
		return t.String()
	}
	equal := at(a.FullSince) == at(b.FullSince) && at(a.LastRound) == at(b.LastRound)
	a.FullSince, a.LastRound, b.FullSince, b.LastRound = nil, nil, nil, nil
	return equal && a == b
}

func (a *Agent) standing() Standing {
	out := standingOf(a.spool.Stats())
	out.Running = os.Getpid()
	if at := a.lastRound.Load(); at > 0 {
		ended := predicate.At(time.UnixMilli(at))
		out.LastRound = &ended
	}
	return out
}

func (a *Agent) writeStanding(s Standing) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = diskio.WriteFile(diskio.OS{}, filepath.Join(a.cfg.Dir, standingFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}
