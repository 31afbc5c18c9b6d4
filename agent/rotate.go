package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/keys"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/identity"
)

const (
	// rotateRequest in the folder asks the agent that runs over it for a new key,
	// and rotateAnswer is why it got none.
	rotateRequest = "rotate.request"
	rotateAnswer  = "rotate.error"
	maxAnswer     = 16 << 10

	requestEvery  = 2 * time.Second
	dueEvery      = time.Minute
	rotateTimeout = 2 * time.Minute
	// drainPatience is how long a rotation that has time waits for the brokers to
	// have everything of the epoch before.
	drainPatience = time.Minute
	fullPause     = time.Second
)

// errKeyEnded says that nothing can be signed any more.
var errKeyEnded = errors.New("the time is over that the agent's key was certified for: run `cavra agent rotate`, or enrol again")

// timed signs until its key's certificate ends.
type timed struct {
	*identity.Key
	ends *predicate.Time
}

// Sign implements attest.Signer.
func (t timed) Sign(message []byte) ([]byte, error) {
	if t.ends != nil && time.Now().After(t.ends.Time()) {
		return nil, fmt.Errorf("%w (it ended at %s)", errKeyEnded, t.ends)
	}
	return t.Key.Sign(message)
}

func signerOf(l enrol.Loaded) timed { return timed{l.Key, l.EndsAt} }

// settleKey ends a rotation that was begun, and makes a new key where the present
// one has ended. It is for a folder whose spool is not open.
func settleKey(ctx context.Context, cfg Config) (enrol.Loaded, error) {
	if _, _, err := enrol.Resume(ctx, cfg.Dir); err != nil {
		// The present key is good meanwhile, and this is tried again.
		cfg.Log.WarnContext(ctx, "the change to a new key is not over: the aggregator has to be asked", slog.Any("error", err))
	}
	l, err := enrol.Load(cfg.Dir)
	if err != nil || l.EndsAt == nil || time.Now().Before(l.EndsAt.Time()) || !l.Begun {
		return l, err
	}
	stats, err := spool.Look(filepath.Join(cfg.Dir, SpoolDir), cfg.Settings.Spool.MaxBytes)
	if err != nil {
		return l, err
	}
	return newKey(ctx, cfg, l, stats, nil)
}

// newKey makes a key and has it taken on; the epoch has yet to be begun.
func newKey(ctx context.Context, cfg Config, l enrol.Loaded, stats spool.Stats, ask func() (string, error)) (enrol.Loaded, error) {
	r := enrol.Rotation{Life: cfg.Settings.Key.Life()}
	if stats.Epoch == l.Epoch && stats.Head.Sequence > 0 {
		r.Last = &predicate.ChainHead{Epoch: stats.Epoch, Sequence: stats.Head.Sequence, Digest: stats.Head.Digest}
	}
	if keys.Remote(l.Holder) {
		holder, err := keys.Open(ctx, l.Holder, ask)
		if err != nil {
			return l, fmt.Errorf("rotate key: %w", err)
		}
		r.Holder = holder
	}
	return enrol.Rotate(ctx, cfg.Dir, r)
}

// succeed takes an open spool over to the epoch of a new key, however long the
// disk is full.
func succeed(ctx context.Context, cfg Config, s *spool.Spool, l enrol.Loaded) error {
	for {
		err := s.Succeed(ctx, spool.Epoch{Number: l.Epoch, Signer: signerOf(l), Opener: *l.Opener, Opening: []byte(l.Opening)})
		if err == nil {
			break
		}
		if !diskio.IsFull(err) {
			return err
		}
		timer := time.NewTimer(fullPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), err)
		}
	}
	faultpoint.Hit("rotation-begun")
	return begun(cfg.Dir, l)
}

// begun notes that the epoch has its first statement.
func begun(dir string, l enrol.Loaded) error {
	if err := enrol.Begin(dir, l.Identity); err != nil {
		return err
	}
	return enrol.DropFormerKeys(dir, l.Identity)
}

// rotations rotates the key when it is due or somebody asks, until ctx ends.
func (a *Agent) rotations(ctx context.Context) error {
	tick := time.NewTicker(requestEvery)
	defer tick.Stop()
	var looked time.Time
	for {
		asked, err := a.asked()
		if err != nil {
			return err
		}
		due := time.Since(looked) >= dueEvery && a.rotationDue()
		if asked || due {
			looked = time.Now()
			err := a.rotate(ctx, due && !asked)
			if fatal := a.answer(ctx, asked, err); fatal != nil {
				return fatal
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// asked takes a request for a new key.
func (a *Agent) asked() (bool, error) {
	request := filepath.Join(a.cfg.Dir, rotateRequest)
	if _, err := os.Stat(request); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	err := diskio.Remove(diskio.OS{}, request)
	return err == nil, err
}

// answer says what became of a rotation. It returns only what the agent cannot go
// on with.
func (a *Agent) answer(ctx context.Context, asked bool, why error) error {
	var fatal *epochError
	switch {
	case errors.As(why, &fatal):
		return why
	case why == nil, errors.Is(why, errNotNow):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	a.cfg.Log.WarnContext(ctx, "no new key: the present one goes on", slog.Any("error", why), slog.Any("ends_at", a.signs.Load().EndsAt))
	if !asked {
		return nil
	}
	return diskio.WriteFile(diskio.OS{}, filepath.Join(a.cfg.Dir, rotateAnswer), []byte(why.Error()), 0o600)
}

// epochError says that the key was changed and the spool could not follow: it has
// to be opened again.
type epochError struct{ err error }

func (e *epochError) Error() string { return e.err.Error() }
func (e *epochError) Unwrap() error { return e.err }

// errNotNow puts a rotation off that has time.
var errNotNow = errors.New("the brokers do not have everything of the present key yet")

func (a *Agent) rotationDue() bool {
	l := a.signs.Load()
	return l.MadeAt != nil && time.Since(l.MadeAt.Time()) >= time.Duration(a.cfg.Settings.Key.MaxAge)
}

// rotate changes to a new key. Where it has time, it waits for the brokers to have
// what the present one signed.
func (a *Agent) rotate(ctx context.Context, hasTime bool) error {
	l := a.signs.Load()
	if hasTime {
		patience, cancel := context.WithTimeout(ctx, drainPatience)
		err := a.spool.Drained(patience)
		cancel()
		if err != nil && (l.EndsAt == nil || time.Until(l.EndsAt.Time()) > time.Duration(a.cfg.Settings.Key.MaxAge)/2) {
			return errNotNow
		}
	}
	next, err := newKey(ctx, a.cfg, *l, a.spool.Stats(), nil)
	if err != nil {
		return err
	}
	if err := succeed(ctx, a.cfg, a.spool, next); err != nil {
		return &epochError{err}
	}
	a.signs.Store(&next)
	a.cfg.Log.InfoContext(ctx, "the agent has a new key", slog.Uint64("epoch", next.Epoch), slog.String("key", string(next.KeyID)))
	return nil
}

// Rotate changes an agent's key: in its folder where no agent runs over it, and
// else by asking the one that does. It returns the epoch that has begun. Ask gets
// a token's PIN; the agent that runs has nobody to ask.
func Rotate(ctx context.Context, cfg Config, ask func() (string, error)) (epoch uint64, err error) {
	l, err := enrol.Load(cfg.Dir)
	if err != nil {
		return 0, err
	}
	if _, _, err := enrol.Resume(ctx, cfg.Dir); err != nil {
		return 0, err
	}
	if now, err := enrol.Load(cfg.Dir); err != nil || now.Epoch > l.Epoch {
		return now.Epoch, err
	}
	s, err := openSpool(ctx, cfg, l)
	if errors.Is(err, diskio.ErrLocked) {
		return askRunning(ctx, cfg.Dir, l.Epoch)
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	l.Begun = true
	next, err := newKey(ctx, cfg, l, s.Stats(), ask)
	if err != nil {
		return 0, err
	}
	return next.Epoch, succeed(ctx, cfg, s, next)
}

// askRunning asks the agent that runs over a folder for a new key and waits.
func askRunning(ctx context.Context, dir string, epoch uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	answer := filepath.Join(dir, rotateAnswer)
	if err := os.Remove(answer); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("rotate key: %w", err)
	}
	if err := diskio.WriteFile(diskio.OS{}, filepath.Join(dir, rotateRequest), nil, 0o600); err != nil {
		return 0, fmt.Errorf("rotate key: %w", err)
	}
	tick := time.NewTicker(requestEvery / 10)
	defer tick.Stop()
	for {
		l, err := enrol.Load(dir)
		if err != nil || l.Epoch > epoch && l.Begun {
			return l.Epoch, err
		}
		why, err := diskio.ReadFile(answer, maxAnswer)
		if err == nil {
			return 0, fmt.Errorf("the agent that runs over the folder got no new key: %s", why)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("rotate key: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("rotate key: the agent that runs over the folder does not answer: %w; its log says more", ctx.Err())
		}
	}
}
