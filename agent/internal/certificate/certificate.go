// Package certificate keeps, in an agent's folder, the keys and certificates of
// its connections to the agents' service: the one in use, and one that is to
// follow.
//
// It guarantees that a key is on the disk before anything is asked for it, that
// one that is in use is deleted only after the next one has taken its place on
// the disk, and that a crash at any moment leaves a folder that leads on.
package certificate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/identity"
)

const (
	stateFile  = "certificate.json"
	keyPattern = "tls-%s.pem"
	maxState   = 256 << 10
	maxKey     = 8 << 10
)

// Service is the way to the agents' service, as the aggregator gave it.
type Service struct {
	Address    string `json:"address"`
	ServerName string `json:"server_name"`
	// CA are the authorities of the service's certificate, PEM.
	CA string `json:"ca"`
}

// Held is a key with its certificate.
type Held struct {
	// KeyFile is in the same folder.
	KeyFile string `json:"key_file"`
	// DER is the certificate; nil before it has come.
	DER []byte `json:"certificate,omitempty"`
	// Generation counts the agent's certificates; 0 before this one is confirmed.
	Generation uint64 `json:"generation,omitempty"`
}

// State is what the folder holds.
type State struct {
	Service Service `json:"service"`
	// Active is the certificate in use; nil before the first.
	Active *Held `json:"active,omitempty"`
	// Candidate is to follow it.
	Candidate *Held `json:"candidate,omitempty"`
	// Unsure is the serial number of a candidate that was given up and that the
	// aggregator may have confirmed.
	Unsure []byte `json:"unsure,omitempty"`
	// Enrolment is where the agent was enrolled, and comes back to.
	Enrolment Enrolment `json:"enrolment"`
}

// Enrolment is the way to the enrolment service.
type Enrolment struct {
	Server string `json:"server,omitempty"`
	// CA is the server's certificate authority, PEM; empty for the system's.
	CA string `json:"ca,omitempty"`
}

// Folder is an agent's folder, as far as these files go. It is for one goroutine
// at a time.
type Folder struct {
	fs    diskio.FS
	dir   string
	state State
}

// Open reads a folder. One without these files is of an agent that has had no
// certificate.
func Open(fsys diskio.FS, dir string) (*Folder, error) {
	f := &Folder{fs: fsys, dir: dir}
	b, err := diskio.ReadFile(filepath.Join(dir, stateFile), maxState)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f.state)
	}
	if err == nil {
		err = errors.Join(f.state.Active.validate(), f.state.Candidate.validate())
	}
	if err != nil {
		return nil, fmt.Errorf("read certificates in %s: %w", dir, err)
	}
	return f, nil
}

func (h *Held) validate() error {
	if h != nil && (h.KeyFile == "" || filepath.Base(h.KeyFile) != h.KeyFile) {
		return fmt.Errorf("the key's file %q is not in the folder", h.KeyFile)
	}
	return nil
}

// State is what the folder holds.
func (f *Folder) State() State { return f.state }

// Key reads the key of one that is held.
func (f *Folder) Key(h *Held) (*identity.Key, error) {
	b, err := diskio.ReadFile(filepath.Join(f.dir, h.KeyFile), maxKey)
	if err != nil {
		return nil, fmt.Errorf("read connection's key: %w", err)
	}
	k, err := identity.ParsePEM(b)
	if err != nil {
		return nil, fmt.Errorf("read connection's key %s: %w", h.KeyFile, err)
	}
	return k, nil
}

// save replaces the state on the disk, and then here.
func (f *Folder) save(s State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = diskio.WriteFile(f.fs, filepath.Join(f.dir, stateFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write certificates: %w", err)
	}
	f.state = s
	return nil
}

// Candidate is the key that is to follow: the one that is there, or a new one,
// which is on the disk when it is returned.
func (f *Folder) Candidate() (*identity.Key, error) {
	if c := f.state.Candidate; c != nil {
		k, err := f.Key(c)
		if err == nil {
			return k, nil
		}
		// A key that cannot be read certifies nothing: another takes its place.
	}
	k, err := identity.Generate(predicate.ECDSAP256)
	if err != nil {
		return nil, fmt.Errorf("make connection's key: %w", err)
	}
	pem, err := k.MarshalPEM()
	if err != nil {
		return nil, fmt.Errorf("make connection's key: %w", err)
	}
	name := fmt.Sprintf(keyPattern, k.Public().ID().Hex()[:16])
	if err := diskio.WriteFile(f.fs, filepath.Join(f.dir, name), pem, 0o600); err != nil {
		return nil, fmt.Errorf("write connection's key: %w", err)
	}
	faultpoint.Hit("tls-key-written")
	next := f.state
	next.Candidate = &Held{KeyFile: name}
	if err := f.save(next); err != nil {
		return nil, err
	}
	faultpoint.Hit("tls-candidate-noted")
	return k, nil
}

// Fresh is a new key that is to follow, whether or not there is one already.
func (f *Folder) Fresh() (*identity.Key, error) {
	if f.state.Candidate != nil {
		if err := f.Discard(); err != nil {
			return nil, err
		}
	}
	return f.Candidate()
}

// Certify notes the certificate of the candidate, and the way to the service
// where that has changed.
func (f *Folder) Certify(der []byte, way Service) error {
	k, err := f.Key(f.state.Candidate)
	if err != nil {
		return err
	}
	if _, err := k.TLS(der); err != nil {
		return err
	}
	next := f.state
	next.Candidate = &Held{KeyFile: f.state.Candidate.KeyFile, DER: der}
	next.Service = way
	if err := f.save(next); err != nil {
		return err
	}
	faultpoint.Hit("tls-candidate-certified")
	return nil
}

// Switch makes the candidate, which the aggregator has confirmed, the one in use,
// and deletes the key of the one before.
func (f *Folder) Switch(generation uint64) error {
	next := f.state
	next.Active = &Held{KeyFile: f.state.Candidate.KeyFile, DER: f.state.Candidate.DER, Generation: generation}
	next.Candidate, next.Unsure = nil, nil
	if err := f.save(next); err != nil {
		return err
	}
	faultpoint.Hit("tls-switched")
	if err := f.Tidy(); err != nil {
		return err
	}
	faultpoint.Hit("tls-former-deleted")
	return nil
}

// Discard gives the candidate up, so that the next one has another key.
func (f *Folder) Discard() error {
	next := f.state
	if c := f.state.Candidate; c != nil && c.DER != nil {
		if leaf, err := identity.ParseCertificate(c.DER); err == nil {
			next.Unsure = leaf.SerialNumber.Bytes()
		}
	}
	next.Candidate = nil
	if err := f.save(next); err != nil {
		return err
	}
	return f.Tidy()
}

// SetEnrolment notes where the agent was enrolled.
func (f *Folder) SetEnrolment(e Enrolment) error {
	next := f.state
	next.Enrolment = e
	return f.save(next)
}

// Tidy deletes the keys that nothing refers to, as a crash leaves them.
func (f *Folder) Tidy() error {
	files, err := filepath.Glob(filepath.Join(f.dir, fmt.Sprintf(keyPattern, "*")+"*"))
	if err != nil {
		return fmt.Errorf("tidy connections' keys: %w", err)
	}
	for _, name := range files {
		base := filepath.Base(name)
		if a, c := f.state.Active, f.state.Candidate; a != nil && a.KeyFile == base || c != nil && c.KeyFile == base {
			continue
		}
		if err := diskio.Remove(f.fs, name); err != nil {
			return fmt.Errorf("tidy connections' keys: %w", err)
		}
	}
	return nil
}
