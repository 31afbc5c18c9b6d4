// Package contact keeps an agent in contact with its aggregator over mutual TLS:
// it checks in, and gets another certificate before the one in use ends.
//
// It guarantees that the agent works on without it, since statements go another
// way; that a new certificate is in use only after the aggregator has taken a
// call with it; and that an answer which was lost is asked for again.
package contact

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/agent/internal/certificate"
	agentv1 "github.com/cavra/cavra/schemas/gen/cavra/agent/v1"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/identity"
)

// Config says what to keep in contact.
type Config struct {
	Dir     string
	Version string
	// Every is the time between two calls, give or take a fifth.
	Every func() time.Duration
	// Remote takes what the aggregator sets; nil takes nothing.
	Remote Remote
	Log    *slog.Logger
	// Enrolled reads the key that the agent comes back by when it has no
	// certificate that is good, and Server is where it was enrolled.
	Enrolled func() (Signer, error)
	Server   string
	// RenewNow asks for another certificate whether or not it is time.
	RenewNow bool
	// FS is where the keys are; nil is the disk.
	FS diskio.FS
}

// Signer is the enrolled key.
type Signer interface {
	Sign(message []byte) ([]byte, error)
	Public() identity.PublicKey
}

// Remote takes what an aggregator sets on this agent.
type Remote interface {
	// Have says whether anything is taken, which version is in use, and when it
	// ends.
	Have() (takes bool, version uint64, end time.Time)
	// Take takes a document or refuses it; an error is the disk's.
	Take(ctx context.Context, envelope []byte) error
}

// Contact is an agent's side of the agents' service.
type Contact struct {
	cfg Config
	// instance is random, and another one at each start.
	instance string
	// failed is how many calls have failed one after the other.
	failed int

	mu       sync.Mutex
	standing Standing
}

// Standing is how an agent stands with its aggregator.
type Standing struct {
	// Generation counts the agent's certificates; 0 is none.
	Generation uint64
	// NotAfter is when the certificate in use ends.
	NotAfter time.Time
	// LastCheckIn is when the aggregator last answered.
	LastCheckIn time.Time
	// Problems are what is wrong in the aggregator's eyes.
	Problems []string
	// Trouble is why the last call failed; nil when it did not.
	Trouble error
}

// New checks the configuration.
func New(cfg Config) (*Contact, error) {
	if cfg.Dir == "" || cfg.Version == "" || cfg.Every == nil || cfg.Log == nil || cfg.Enrolled == nil {
		return nil, errors.New("contact: folder, version, interval, logger and the enrolled key are required")
	}
	if cfg.FS == nil {
		cfg.FS = diskio.OS{}
	}
	c := &Contact{cfg: cfg, instance: strings.ToLower(rand.Text())}
	if s, err := StandingOf(cfg.Dir); err == nil {
		c.standing = s
	}
	return c, nil
}

// StandingOf is how the agent of a folder stands, as far as its files say.
func StandingOf(dir string) (Standing, error) {
	f, err := certificate.Open(diskio.OS{}, dir)
	if err != nil {
		return Standing{}, err
	}
	return held(f.State())
}

func held(s certificate.State) (Standing, error) {
	if s.Active == nil {
		return Standing{}, nil
	}
	leaf, err := identity.ParseCertificate(s.Active.DER)
	if err != nil {
		return Standing{}, err
	}
	return Standing{Generation: s.Active.Generation, NotAfter: leaf.NotAfter}, nil
}

// Standing is how this agent stands.
func (c *Contact) Standing() Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.standing
}

// lockFile is held by the process that calls: two at a time would be taken for
// two agents.
const lockFile = "contact.lock"

// ErrCalling says that another process keeps this folder in contact.
var ErrCalling = errors.New("another process calls the aggregator for this folder: an agent runs over it, and calls by itself")

// hold takes the folder's contact for this process.
func (c *Contact) hold() (release func(), err error) {
	unlock, err := diskio.Lock(filepath.Join(c.cfg.Dir, lockFile))
	if errors.Is(err, diskio.ErrLocked) {
		return nil, ErrCalling
	}
	if err != nil {
		return nil, fmt.Errorf("keep in contact: %w", err)
	}
	return func() {
		if err := unlock(); err != nil {
			c.cfg.Log.Warn("cannot give the folder's contact back", slog.Any("error", err))
		}
	}, nil
}

// Run keeps in contact until ctx ends, whose error it returns. That the
// aggregator cannot be reached ends nothing.
func (c *Contact) Run(ctx context.Context) error {
	release := func() {}
	defer func() { release() }()
	for held := false; ; {
		if !held {
			if r, err := c.hold(); err != nil {
				c.note(ctx, Standing{}, err)
			} else {
				release, held = r, true
			}
		}
		if held {
			s, err := c.once(ctx)
			c.note(ctx, s, err)
		}
		every := c.cfg.Every()
		timer := time.NewTimer(every*4/5 + mathrand.N(every*2/5+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Once makes contact once.
func (c *Contact) Once(ctx context.Context) error {
	release, err := c.hold()
	if err != nil {
		return err
	}
	defer release()
	s, err := c.once(ctx)
	c.note(ctx, s, err)
	return err
}

// note takes over how a call went. What goes wrong the standing says, and the log
// once.
func (c *Contact) note(ctx context.Context, s Standing, err error) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	before := c.standing
	if s.LastCheckIn.IsZero() {
		s.LastCheckIn, s.Problems = before.LastCheckIn, before.Problems
	}
	if s.Generation == 0 && err != nil {
		s.Generation, s.NotAfter = before.Generation, before.NotAfter
	}
	s.Trouble = err
	c.standing = s
	c.mu.Unlock()
	switch {
	case err != nil && before.Trouble == nil:
		c.cfg.Log.WarnContext(ctx, "no contact with the aggregator; the agent works on, and tries again", slog.Any("error", err))
	case err == nil && before.Trouble != nil:
		c.cfg.Log.InfoContext(ctx, "contact with the aggregator is back")
	}
	for _, p := range s.Problems {
		if !slices.Contains(before.Problems, p) {
			c.cfg.Log.WarnContext(ctx, "the aggregator sees something wrong with this agent", slog.String("problem", p))
		}
	}
}

// once makes contact, with what the folder holds now: another process may have
// enrolled the agent anew.
func (c *Contact) once(ctx context.Context) (Standing, error) {
	f, err := certificate.Open(c.cfg.FS, c.cfg.Dir)
	if err != nil {
		return Standing{}, err
	}
	if err := f.Tidy(); err != nil {
		return Standing{}, err
	}
	answer, err := c.call(ctx, f)
	if errors.Is(err, errNoService) && f.State().Active == nil {
		return Standing{}, nil
	}
	if err != nil {
		c.failed++
	} else {
		c.failed = 0
	}
	s, bad := held(f.State())
	if err == nil && bad == nil {
		s.LastCheckIn = time.Now()
		for _, p := range answer.GetProblems() {
			s.Problems = append(s.Problems, p.GetText())
		}
	}
	return s, errors.Join(err, bad)
}

// patience is how many calls may fail before the agent tries to come back by its
// enrolled key: its certificate may have ended while its clock says otherwise.
const patience = 3

// call checks in, and comes back by the enrolled key first where the certificate
// is no good any more.
func (c *Contact) call(ctx context.Context, f *certificate.Folder) (*agentv1.CheckInResponse, error) {
	err := errNoCertificate
	if c.usable(f) {
		var answer *agentv1.CheckInResponse
		answer, err = c.checkIn(ctx, f)
		if err == nil || errors.Is(err, errRevoked) || !unauthenticated(err) && c.failed < patience {
			return answer, err
		}
	}
	if back := c.comeBack(ctx, f); back != nil {
		return nil, errors.Join(back, err)
	}
	return c.checkIn(ctx, f)
}

// errNoCertificate says that there is none to call with.
var errNoCertificate = errors.New("there is no certificate that is good")

// usable reports whether there is a certificate that may be good.
func (c *Contact) usable(f *certificate.Folder) bool {
	s := f.State()
	for _, h := range []*certificate.Held{s.Active, s.Candidate} {
		if h == nil || h.DER == nil {
			continue
		}
		if leaf, err := identity.ParseCertificate(h.DER); err == nil && time.Now().Before(leaf.NotAfter) {
			return true
		}
	}
	return false
}

// unauthenticated reports whether the service says that the certificate is no
// good.
func unauthenticated(err error) bool {
	var refused *connect.Error
	return errors.As(err, &refused) && connect.IsWireError(err) && (refused.Code() == connect.CodeUnauthenticated || refused.Code() == connect.CodeAborted)
}

// checkIn confirms a candidate that waits for it, checks in, and renews where it
// is time.
func (c *Contact) checkIn(ctx context.Context, f *certificate.Folder) (*agentv1.CheckInResponse, error) {
	if w := f.State().Candidate; w != nil && w.DER != nil {
		if err := c.confirm(ctx, f); err != nil {
			return nil, err
		}
	}
	s := f.State()
	if s.Active == nil {
		return nil, errNoCertificate
	}
	client, err := c.client(f, s.Active)
	if err != nil {
		return nil, err
	}
	defer client.close()
	req := &agentv1.CheckInRequest{AgentVersion: c.cfg.Version, Clock: time.Now().UnixMilli(), Instance: c.instance, Generation: s.Active.Generation}
	if c.cfg.Remote != nil {
		var end time.Time
		req.Configurable, req.ConfigurationVersion, end = c.cfg.Remote.Have()
		req.ConfigurationEnd = max(end.UnixMilli(), 0)
	}
	answer, err := client.CheckIn(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, fmt.Errorf("check in at %s: %w", s.Service.Address, classify(err))
	}
	if b := answer.Msg.GetConfiguration(); len(b) > 0 && req.GetConfigurable() {
		if err := c.cfg.Remote.Take(ctx, b); err != nil {
			return nil, err
		}
	}
	if answer.Msg.GetRenew() || c.cfg.RenewNow {
		if err := c.renew(ctx, f, client); err != nil {
			return nil, err
		}
	}
	return answer.Msg, nil
}

func (c *Contact) client(f *certificate.Folder, h *certificate.Held) (*client, error) {
	key, err := f.Key(h)
	if err != nil {
		return nil, err
	}
	return newClient(f.State().Service, key, h.DER)
}

// renew gets a certificate for another key and takes it into use.
func (c *Contact) renew(ctx context.Context, f *certificate.Folder, by *client) error {
	key, err := f.Candidate()
	if err != nil {
		return err
	}
	der, err := key.Public().DER()
	if err != nil {
		return err
	}
	s := f.State()
	proof, err := key.Sign(identity.Binding(identity.AtRenewal, strconv.FormatUint(s.Active.Generation, 10), "", key.Public()))
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	answer, err := by.Renew(ctx, connect.NewRequest(&agentv1.RenewRequest{
		PublicKey: der, Proof: proof, Instance: c.instance, Generation: s.Active.Generation,
	}))
	faultpoint.Hit("tls-renew-answered")
	switch code := connect.CodeOf(err); {
	case err != nil && connect.IsWireError(err) && (code == connect.CodeAlreadyExists || code == connect.CodeInvalidArgument):
		return errors.Join(fmt.Errorf("renew certificate: %w", err), f.Discard())
	case err != nil:
		return fmt.Errorf("renew certificate: %w", classify(err))
	}
	way := s.Service
	if pem := answer.Msg.GetCaPem(); pem != "" {
		way.CA = pem
	}
	if err := f.Certify(answer.Msg.GetCertificate(), way); err != nil {
		return err
	}
	return c.confirm(ctx, f)
}

// confirm calls with the candidate, and takes it into use once the aggregator
// has answered. One that the aggregator does not take is given up.
func (c *Contact) confirm(ctx context.Context, f *certificate.Folder) error {
	client, err := c.client(f, f.State().Candidate)
	if err != nil {
		return errors.Join(err, f.Discard())
	}
	defer client.close()
	answer, err := client.Confirm(ctx, connect.NewRequest(&agentv1.ConfirmRequest{Instance: c.instance}))
	faultpoint.Hit("tls-confirm-answered")
	if err == nil {
		return f.Switch(answer.Msg.GetGeneration())
	}
	switch code := connect.CodeOf(err); {
	case connect.IsWireError(err) && (code == connect.CodeUnauthenticated || code == connect.CodeAborted), time.Now().After(client.leaf.NotAfter):
		return errors.Join(fmt.Errorf("confirm certificate: %w", err), f.Discard())
	}
	return fmt.Errorf("confirm certificate: %w", classify(err))
}
