package agent

import (
	"context"
	"time"

	"github.com/cavra/cavra/agent/internal/contact"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/remote"
)

func newContact(cfg Config, id enrol.Loaded, renew bool, set *remote.Remote) (*contact.Contact, error) {
	return contact.New(contact.Config{
		Dir: cfg.Dir, Version: cfg.Version, Remote: set, Log: cfg.Log,
		Every: func() time.Duration {
			s, _ := set.Settings()
			return time.Duration(s.CheckIn)
		},
		Server: id.Server, RenewNow: renew,
		// As it is on the disk: it may have been followed by another since.
		Enrolled: func() (contact.Signer, error) {
			now, err := enrol.Load(cfg.Dir)
			return now.Key, err
		},
	})
}

// CheckIn calls the aggregator once, for an agent that does not run, and says how
// it stands then. With renew it gets another certificate even where it is not
// time.
func CheckIn(ctx context.Context, cfg Config, renew bool) (Contact, error) {
	id, err := enrol.Load(cfg.Dir)
	if err != nil {
		return Contact{}, err
	}
	set, err := openRemote(ctx, cfg, id)
	if err != nil {
		return Contact{}, err
	}
	c, err := newContact(cfg, id, renew, set)
	if err != nil {
		return Contact{}, err
	}
	if err := c.Once(ctx); err != nil {
		return Contact{}, err
	}
	if out := contactOf(c.Standing()); out != nil {
		return *out, nil
	}
	return Contact{}, errNoService
}
