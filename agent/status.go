package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/agent/internal/contact"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/keys"
	"github.com/cavra/cavra/agent/internal/publish"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
)

// Status is how an agent stands.
type Status struct {
	Tenant string `json:"tenant"`
	Agent  string `json:"agent"`
	Server string `json:"server"`
	Key    Key    `json:"key"`
	Standing
	// Brokers is BrokersReady, or what stands between this agent and its topic
	// and what to do about it.
	Brokers string `json:"brokers"`
}

// Key is what an agent signs with.
type Key struct {
	// Holder is where the key is that certifies the agent's: a KMS, a token, or
	// the folder's own file.
	Holder string          `json:"holder"`
	MadeAt *predicate.Time `json:"made_at,omitempty"`
	// EndsAt is when its certificate ends.
	EndsAt *predicate.Time `json:"ends_at,omitempty"`
	// Authority certified it.
	Authority predicate.Digest `json:"authority,omitempty"`
	// DueAt is when the next one is to follow.
	DueAt *predicate.Time `json:"due_at,omitempty"`
}

func keyOf(id enrol.Loaded, maxAge time.Duration) Key {
	out := Key{Holder: cmp.Or(id.Holder, keys.File), MadeAt: id.MadeAt, EndsAt: id.EndsAt, Authority: id.Authority}
	if id.MadeAt != nil {
		due := predicate.At(id.MadeAt.Time().Add(maxAge))
		out.DueAt = &due
	}
	return out
}

// Standing is the part of a Status that the process knows which has the spool
// open. A running agent writes it down; when none runs, it is read from the
// spool.
type Standing struct {
	// Running is the process that runs over the folder; 0 when none does.
	Running int `json:"running_pid,omitempty"`
	// Owner tells this run from one before it whose process had the same number.
	Owner string           `json:"owner,omitempty"`
	KeyID predicate.Digest `json:"key_id"`
	// Privacy says what leaves. At which level an agent runs, it says itself: its
	// configuration may have changed since.
	Privacy predicate.Privacy `json:"privacy"`
	// AsOf is when it stood so. A running agent says so anew within sayEvery,
	// whatever changes.
	AsOf     predicate.Time   `json:"as_of"`
	Epoch    uint64           `json:"epoch"`
	Sequence uint64           `json:"sequence"`
	Head     predicate.Digest `json:"head,omitempty"`
	// Acknowledged is up to which statement the brokers have acknowledged.
	Acknowledged spool.Place `json:"acknowledged"`
	// Waiting statements, of so many bytes, are signed and not acknowledged.
	Waiting      uint64 `json:"waiting"`
	WaitingBytes uint64 `json:"waiting_bytes"`
	// Bytes are what the spool takes on the disk, of MaxBytes.
	Bytes    int64 `json:"disk_bytes"`
	MaxBytes int64 `json:"max_bytes"`
	// Kept statements, which take KeptBytes on the disk, stay on this machine.
	Kept      uint64 `json:"kept,omitempty"`
	KeptBytes int64  `json:"kept_bytes,omitempty"`
	// FullSince is when scanning began to wait for room in the spool.
	FullSince *predicate.Time `json:"full_since,omitempty"`
	// DiskError is what is wrong with the folder's disk, and what to do about it.
	DiskError string `json:"disk_error,omitempty"`
	// Damaged segments of the spool are mended when an agent starts. Until then
	// nobody knows more than what stands before the damage.
	Damaged int `json:"damaged_segments,omitempty"`
	// Refused is how often the connectors of this run tried to reach what their scopes
	// do not allow.
	Refused uint64 `json:"egress_refused,omitempty"`
	Remembered
	// Trouble is what a running agent's publisher last met with that is not over.
	Trouble *Trouble `json:"publish_error,omitempty"`
	// Contact is how the agent stands with the aggregator's service for agents.
	Contact *Contact `json:"contact,omitempty"`
}

// Contact is an agent's certificate and its calls.
type Contact struct {
	// Generation counts the agent's certificates, and NotAfter is when the one in
	// use ends.
	Generation uint64          `json:"generation"`
	NotAfter   predicate.Time  `json:"not_after"`
	LastCall   *predicate.Time `json:"last_check_in_at,omitempty"`
	// Problems are what is wrong with the agent in the aggregator's eyes.
	Problems []string `json:"problems,omitempty"`
	// Error is why the last call failed.
	Error string `json:"error,omitempty"`
}

// errNoService says that an aggregator has no service that agents call.
var errNoService = errors.New("the aggregator that this agent was enrolled at has no service for agents")

func contactOf(s contact.Standing) *Contact {
	if s.Generation == 0 {
		return nil
	}
	out := &Contact{Generation: s.Generation, NotAfter: predicate.At(s.NotAfter), LastCall: moment(s.LastCheckIn), Problems: s.Problems}
	if s.Trouble != nil {
		out.Error = s.Trouble.Error()
	}
	return out
}

// Remembered is what an agent remembers over its end. An agent that is killed
// forgets what came in its last moments: less than sayEvery.
type Remembered struct {
	// LastRound is when the last round ended, and LastComplete when the last one
	// did that could list everything.
	LastRound    *predicate.Time `json:"last_round_at,omitempty"`
	LastComplete *predicate.Time `json:"last_complete_at,omitempty"`
	// LastAck is when the brokers last acknowledged something.
	LastAck *predicate.Time `json:"last_acknowledged_at,omitempty"`
}

// Trouble is an error that keeps statements from being delivered.
type Trouble struct {
	Since predicate.Time `json:"since"`
	Error string         `json:"error"`
}

// BrokersReady says that the brokers take this agent's login and know its topic.
const BrokersReady = "ready"

const (
	// checkTimeout bounds the question to the brokers.
	checkTimeout = 10 * time.Second
	// standingFile is where a running agent writes how it stands, standingEvery
	// how often it looks whether that has changed, and sayEvery how often it
	// writes it in any case.
	standingFile  = "status.json"
	standingEvery = 2 * time.Second
	sayEvery      = 30 * time.Second
	maxStanding   = 64 << 10
)

// ErrRunning says that a process has an agent's folder in use.
var ErrRunning = errors.New("the folder is in use")

// StatusOf says how the agent of a folder stands, whether one runs over it or
// not, and asks the brokers. It changes nothing in the folder.
func StatusOf(ctx context.Context, cfg Config) (Status, error) {
	id, err := enrol.Load(cfg.Dir)
	if err != nil {
		return Status{}, err
	}
	out := Status{Tenant: id.Tenant, Agent: id.Agent, Server: id.Server, Brokers: BrokersReady, Key: keyOf(id, time.Duration(cfg.Settings.Key.MaxAge))}
	if out.Standing, err = findStanding(ctx, cfg, id); err != nil {
		return Status{}, err
	}
	// What an agent has not been able to write down can be seen all the same.
	if failed := lookAtDisk(cfg.Dir); failed != nil && out.DiskError == "" {
		out.DiskError = failed.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := publish.Check(ctx, publish.Access(id.Kafka)); err != nil {
		out.Brokers = err.Error()
	}
	return out, nil
}

// findStanding reads the spool while no agent runs, and what the agent that runs
// has written. What another run has written counts for neither.
func findStanding(ctx context.Context, cfg Config, id enrol.Loaded) (Standing, error) {
	limit, tick := time.NewTimer(takePatience), time.NewTicker(takePatience/30)
	defer limit.Stop()
	defer tick.Stop()
	dir := filepath.Join(cfg.Dir, SpoolDir)
	var before diskio.Owner
	for {
		stats, err := spool.Look(dir, cfg.Settings.Spool.MaxBytes)
		if err == nil {
			return atRest(cfg, stats, id)
		}
		if !errors.Is(err, diskio.ErrLocked) {
			return Standing{}, err
		}
		owner, ok, err := spool.OwnerOf(dir)
		if err != nil {
			return Standing{}, err
		}
		// Who takes the lock needs a moment to write who it is: the word of one
		// that was there before, too, counts.
		if ok && owner == before {
			s, found, err := readStanding(cfg.Dir)
			if err != nil || found && s.Owner == owner.ID {
				return s, err
			}
		}
		before = owner
		select {
		case <-tick.C:
		case <-limit.C:
			return Standing{}, fmt.Errorf("%w by process %d, which has not said yet how it stands: ask again in a moment", ErrRunning, before.PID)
		case <-ctx.Done():
			return Standing{}, ctx.Err()
		}
	}
}

// atRest is how an agent stands that does not run.
func atRest(cfg Config, stats spool.Stats, id enrol.Loaded) (Standing, error) {
	if stats.Epoch < id.Epoch {
		stats.Epoch, stats.Head = id.Epoch, chain.Head{} // enrolled, and not begun
	}
	out := standingOf(stats)
	out.KeyID, out.Privacy = id.KeyID, cfg.Settings.Privacy
	last, _, err := readStanding(cfg.Dir)
	if err != nil {
		return Standing{}, err
	}
	out.Remembered = last.Remembered
	here, err := contact.StandingOf(cfg.Dir)
	if out.Contact = contactOf(here); out.Contact != nil && last.Contact != nil {
		out.Contact.LastCall = last.Contact.LastCall
	}
	if err != nil || cfg.Settings.Privacy != predicate.FullLocal {
		return out, err
	}
	kept, err := spool.Look(filepath.Join(cfg.Dir, KeptDir), cfg.Settings.Spool.KeptBytes)
	out.keeps(kept)
	return out, err
}

func standingOf(st spool.Stats) Standing {
	return Standing{
		AsOf: predicate.At(time.Now()), Epoch: st.Epoch, Sequence: st.Head.Sequence, Head: st.Head.Digest, Acknowledged: st.Acked,
		Waiting: st.Statements, WaitingBytes: st.Bytes, Bytes: st.Disk, MaxBytes: st.MaxBytes, FullSince: moment(st.FullSince), Damaged: st.Damaged,
	}
}

func (s *Standing) keeps(kept spool.Stats) { s.Kept, s.KeptBytes = kept.Statements, kept.Disk }

// moment is a time, or nil when there is none.
func moment(t time.Time) *predicate.Time {
	if t.IsZero() {
		return nil
	}
	at := predicate.At(t)
	return &at
}

// readStanding reads what the last agent has written that ran over the folder.
func readStanding(dir string) (s Standing, found bool, err error) {
	b, err := diskio.ReadFile(filepath.Join(dir, standingFile), maxStanding)
	if errors.Is(err, os.ErrNotExist) {
		return Standing{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return Standing{}, false, fmt.Errorf("read the agent's own word of how it stands: %w (it may be deleted: a running agent writes it anew)", err)
	}
	return s, true, nil
}

// inUse names the process that has the folder in use.
func inUse(dir string) error {
	owner, ok, err := spool.OwnerOf(filepath.Join(dir, SpoolDir))
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("%w: %s", ErrRunning, dir), err)
	case !ok:
		return fmt.Errorf("%w: somebody reads the spool in %s: try again when that has ended", ErrRunning, dir)
	}
	return fmt.Errorf("%w: process %d runs an agent over %s: stop it first, or ask it with cavra agent status", ErrRunning, owner.PID, dir)
}

// recall takes over what the agent before this one remembered.
func (a *Agent) recall() error {
	owner, ok, err := spool.OwnerOf(filepath.Join(a.cfg.Dir, SpoolDir))
	if err != nil || !ok {
		return fmt.Errorf("find own lock: %w", cmp.Or(err, errors.New("nobody has it")))
	}
	a.owner = owner.ID
	last, _, err := readStanding(a.cfg.Dir)
	if err != nil {
		a.cfg.Log.Warn("when the last round ended is not known", slog.Any("error", err))
	}
	if last.LastRound != nil {
		a.lastRound.Store(last.LastRound.Time().UnixMilli())
	}
	if last.LastComplete != nil {
		a.lastComplete.Store(last.LastComplete.Time().UnixMilli())
	}
	if last.LastAck != nil {
		a.lastAck.Store(last.LastAck.Time().UnixMilli())
	}
	return nil
}

// stands writes down how the agent stands, whenever that has changed, until ctx
// ends.
func (a *Agent) stands(ctx context.Context) error {
	tick := time.NewTicker(standingEvery)
	defer tick.Stop()
	var last []byte
	var said time.Time
	for {
		now := a.standing()
		if b := now.unchanging(); string(b) != string(last) || time.Since(said) >= sayEvery {
			last, said = b, time.Now()
			a.say(ctx, now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unchanging is a standing without the time at which it stood so.
func (s Standing) unchanging() []byte {
	s.AsOf = predicate.Time{}
	b, err := json.Marshal(s)
	if err != nil {
		return nil // it is then said each time
	}
	return b
}

func (a *Agent) standing() Standing {
	stats := a.spool.Stats()
	out := standingOf(stats)
	if failed := diskError(a.cfg.Dir, stats.Trouble); failed != nil {
		out.DiskError = failed.Error()
	}
	out.Running, out.Owner = os.Getpid(), a.owner
	out.KeyID, out.Privacy = a.signs.Load().KeyID, a.cfg.Settings.Privacy
	if a.kept != nil {
		out.keeps(a.kept.Stats())
	}
	out.LastRound, out.LastComplete, out.LastAck = milli(a.lastRound.Load()), milli(a.lastComplete.Load()), milli(a.lastAck.Load())
	for _, c := range a.connector {
		out.Refused += c.Refused()
	}
	out.Contact = contactOf(a.contact.Standing())
	if t := a.publisher.Trouble(); t != nil {
		out.Trouble = &Trouble{Since: predicate.At(t.Since), Error: t.Err.Error()}
	}
	return out
}

// milli is a moment in milliseconds since 1970; nil for none.
func milli(at int64) *predicate.Time {
	if at == 0 {
		return nil
	}
	return moment(time.UnixMilli(at))
}

// say writes a standing down. It is for people who ask: where it cannot be
// written, the agent goes on.
func (a *Agent) say(ctx context.Context, s Standing) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = diskio.WriteFile(diskio.OS{}, filepath.Join(a.cfg.Dir, standingFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		a.cfg.Log.WarnContext(ctx, "cavra agent status will not see how this agent stands", slog.Any("error", err))
	}
}
