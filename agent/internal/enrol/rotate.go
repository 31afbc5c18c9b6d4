package enrol

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/agent/internal/certificate"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/identity"
)

const (
	rotationFile = "rotating.json"
	rotatePrefix = "cavra-rotate-v1\n"
)

// pending is a rotation that the aggregator may know of: the identity as it will
// be.
type pending struct {
	Identity Identity `json:"identity"`
}

// Rotation is a change to a new key.
type Rotation struct {
	// Holder holds the key that certifies the agent's; nil where the present key
	// certifies the next.
	Holder identity.Holder
	// Life is for how long a holder's key certifies a local one.
	Life time.Duration
	// Last is where the epoch stands, if that is known.
	Last *predicate.ChainHead
}

// Rotate makes a new key, has the aggregator take it on, and makes it the
// folder's. The next epoch is not begun yet. The key and the statement that
// certifies it are on the disk before anybody is asked, so that whenever this
// ends halfway, the next Rotate or Resume asks for the same.
func Rotate(ctx context.Context, dir string, r Rotation) (Loaded, error) {
	if done, ok, err := Resume(ctx, dir); ok || err != nil {
		return done, err
	}
	l, err := Load(dir)
	if err != nil {
		return Loaded{}, err
	}
	if !l.Begun {
		return Loaded{}, errors.New("rotate key: the agent's present epoch has not begun: run the agent first")
	}
	p, err := prepare(ctx, dir, l, r)
	if err != nil {
		return Loaded{}, fmt.Errorf("rotate key: %w", err)
	}
	faultpoint.Hit("rotation-prepared")
	if err := p.ask(ctx, dir); err != nil {
		return Loaded{}, fmt.Errorf("rotate key: %w", err)
	}
	return p.adopt(dir)
}

// Resume ends a rotation that was begun; ok is false where there is none to be
// ended. One that the aggregator refuses is given up, and the present key stays.
func Resume(ctx context.Context, dir string) (l Loaded, ok bool, err error) {
	var p pending
	if found, err := readState(dir, rotationFile, &p); err != nil || !found {
		return Loaded{}, false, err
	}
	l, err = Load(dir)
	if err != nil {
		return Loaded{}, false, err
	}
	if l.Epoch < p.Identity.Epoch {
		err = p.ask(ctx, dir)
		if errors.Is(err, errNotTaken) {
			return Loaded{}, false, diskio.Remove(diskio.OS{}, filepath.Join(dir, rotationFile))
		}
		if err != nil {
			return Loaded{}, false, fmt.Errorf("rotate key: %w", err)
		}
	}
	l, err = p.adopt(dir)
	return l, err == nil, err
}

func prepare(ctx context.Context, dir string, l Loaded, r Rotation) (pending, error) {
	key, file, err := makeKey(dir)
	if err != nil {
		return pending{}, err
	}
	now := predicate.At(time.Now())
	next := l.Identity
	next.Epoch, next.EpochCause, next.Begun, next.KeyID, next.KeyFile = l.Epoch+1, predicate.Rotated, false, key.Public().ID(), file
	next.MadeAt, next.EndsAt = &now, nil
	var by identity.Holder = identity.Local{Key: l.Key, Where: l.KeyFile}
	if r.Holder != nil {
		by = r.Holder
		ends := predicate.At(now.Time().Add(r.Life))
		next.EndsAt = &ends
	}
	if err := next.open(ctx, dir, by, key.Public(), r.Last); err != nil {
		return pending{}, err
	}
	return pending{next}, writeState(dir, rotationFile, pending{next})
}

// errNotTaken says that the aggregator has not taken the key on, and never will.
var errNotTaken = errors.New("the new key is not taken on")

// ask has the aggregator take the new key on.
func (p pending) ask(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	key, err := readKey(dir, p.Identity.KeyFile)
	if err != nil {
		return err
	}
	envelope, err := attest.Open([]byte(p.Identity.Opening))
	if err != nil {
		return err
	}
	proof, err := key.Sign([]byte(rotatePrefix + string(envelope.Digest())))
	if err != nil {
		return err
	}
	certificates, err := certificate.Open(diskio.OS{}, dir)
	if err != nil {
		return err
	}
	client, err := httpClient(p.Identity.Server, certificates.State().Enrolment.CA)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	service := enrolv1connect.NewEnrolmentServiceClient(client, p.Identity.Server, connect.WithReadMaxBytes(maxAnswer))
	if _, err := service.RotateKey(ctx, connect.NewRequest(&enrolv1.RotateKeyRequest{EpochStatement: []byte(p.Identity.Opening), Proof: proof})); err != nil {
		switch connect.CodeOf(err) {
		case connect.CodeInvalidArgument, connect.CodePermissionDenied, connect.CodeFailedPrecondition, connect.CodeAlreadyExists:
			return errors.Join(errNotTaken, refusal(p.Identity.Server, err))
		}
		return refusal(p.Identity.Server, err)
	}
	faultpoint.Hit("rotation-answered")
	return nil
}

// adopt makes the new key the folder's.
func (p pending) adopt(dir string) (Loaded, error) {
	l, err := Load(dir)
	if err != nil {
		return Loaded{}, err
	}
	if l.Epoch < p.Identity.Epoch {
		// What else the identity holds may have changed meanwhile.
		next := l.Identity
		next.Epoch, next.EpochCause, next.Begun, next.KeyID, next.KeyFile = p.Identity.Epoch, p.Identity.EpochCause, false, p.Identity.KeyID, p.Identity.KeyFile
		next.SigningKey = p.Identity.SigningKey
		if err := next.save(dir); err != nil {
			return Loaded{}, err
		}
		faultpoint.Hit("rotation-saved")
	}
	if err := diskio.Remove(diskio.OS{}, filepath.Join(dir, rotationFile)); err != nil {
		return Loaded{}, fmt.Errorf("rotate key: %w", err)
	}
	return Load(dir)
}
