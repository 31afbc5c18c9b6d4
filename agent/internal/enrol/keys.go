package enrol

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

// SigningKey is what an identity says of its key.
type SigningKey struct {
	// MadeAt is when the key was made; nil for one of an older cavra.
	MadeAt *predicate.Time `json:"key_made_at,omitempty"`
	// EndsAt is when the key's certificate ends; nil for a key without an end.
	EndsAt *predicate.Time `json:"key_ends_at,omitempty"`
	// Holder is where the key is that certifies this one; empty for none.
	Holder string `json:"key_holder,omitempty"`
	// Authority certified the key: the holder's, or the one of the epoch before.
	// Empty for a key that opens its epoch itself.
	Authority predicate.Digest `json:"key_authority,omitempty"`
	// Opening is the envelope of the epoch's first statement, by Authority.
	Opening string `json:"epoch_statement,omitempty"`
}

const (
	// publicPattern names the public half of a key whose private one is elsewhere,
	// or gone.
	publicPattern = "public-%s.pem"
	publicType    = "PUBLIC KEY"
	candidateFile = "enrolling.json"
	certifyPrefix = "cavra-certify-v1\n"
	maxState      = 64 << 10
)

// candidate is a key that is to be enrolled. It is the same for each try with the
// same token.
type candidate struct {
	Token   string         `json:"token_sha256"`
	KeyFile string         `json:"key_file"`
	MadeAt  predicate.Time `json:"made_at"`
	key     *identity.Key
}

// ends is when the certificate of a key ends.
func (c candidate) ends(life time.Duration) predicate.Time {
	return predicate.At(c.MadeAt.Time().Add(life))
}

// takeCandidate makes a key for a token, or takes the one that was made for it.
func takeCandidate(r Request) (candidate, error) {
	sum := sha256.Sum256([]byte(r.JoinToken))
	token := hex.EncodeToString(sum[:])
	var c candidate
	found, err := readState(r.Dir, candidateFile, &c)
	if err != nil {
		return c, err
	}
	if found && c.Token == token {
		c.key, err = readKey(r.Dir, c.KeyFile)
		return c, err
	}
	c = candidate{Token: token, MadeAt: predicate.At(time.Now())}
	if c.key, c.KeyFile, err = makeKey(r.Dir); err != nil {
		return c, err
	}
	return c, writeState(r.Dir, candidateFile, c)
}

func dropCandidate(dir string) error {
	return diskio.Remove(diskio.OS{}, filepath.Join(dir, candidateFile))
}

// makeKey makes a key in a file of the folder.
func makeKey(dir string) (*identity.Key, string, error) {
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		return nil, "", err
	}
	b, err := key.MarshalPEM()
	if err != nil {
		return nil, "", err
	}
	name := fmt.Sprintf(keyPattern, key.Public().ID().Hex()[:16])
	return key, name, diskio.WriteFile(diskio.OS{}, filepath.Join(dir, name), b, 0o600)
}

func readKey(dir, name string) (*identity.Key, error) {
	b, err := diskio.ReadFile(filepath.Join(dir, filepath.Base(name)), maxState)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := identity.ParsePEM(b)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", name, err)
	}
	return key, nil
}

func readState(dir, name string, v any) (found bool, err error) {
	b, err := diskio.ReadFile(filepath.Join(dir, name), maxState)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	return true, nil
}

func writeState(dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = diskio.WriteFile(diskio.OS{}, filepath.Join(dir, name), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// certification is the holder's word for the key that is to be enrolled; nil
// without a holder.
func certification(ctx context.Context, r Request, c candidate) (*enrolv1.Certification, error) {
	if r.Holder == nil {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	der, err := r.Holder.Public().DER()
	if err != nil {
		return nil, err
	}
	from, to := c.MadeAt.Time().UnixMilli(), c.ends(r.KeyLife).Time().UnixMilli()
	proof, err := r.Holder.Sign(ctx, []byte(certifyPrefix+r.JoinToken+"\n"+string(c.key.Public().ID())+"\n"+strconv.FormatInt(from, 10)+"\n"+strconv.FormatInt(to, 10)))
	if err != nil {
		return nil, err
	}
	return &enrolv1.Certification{PublicKey: der, Algorithm: string(r.Holder.Public().Algorithm), NotBefore: from, NotAfter: to, Proof: proof}, nil
}

// certify has the holder sign the first statement of the epoch, so that it is not
// needed again until the key is rotated.
func (i *Identity) certify(ctx context.Context, r Request, key identity.PublicKey) error {
	if r.Holder == nil {
		return nil
	}
	ends := predicate.At(i.MadeAt.Time().Add(r.KeyLife))
	i.Holder, i.EndsAt = r.HolderName, &ends
	return i.open(ctx, r.Dir, r.Holder, key, nil)
}

// open signs the first statement of the identity's epoch by another key than its
// own.
func (i *Identity) open(ctx context.Context, dir string, by identity.Holder, key identity.PublicKey, last *predicate.ChainHead) error {
	der, err := key.DER()
	if err != nil {
		return err
	}
	payload, err := predicate.Marshal(&predicate.Epoch{
		Link: predicate.Link{
			Tenant: i.Tenant, Agent: i.Agent, KeyID: by.Public().ID(), Epoch: i.Epoch, Sequence: 1, Previous: predicate.ZeroDigest, SignedAt: predicate.At(time.Now()),
		},
		Cause: i.EpochCause, Algorithm: by.Public().Algorithm, Last: last,
		Key: &predicate.SigningKey{KeyID: key.ID(), Algorithm: key.Algorithm, PublicKey: der, NotBefore: *i.MadeAt, NotAfter: i.EndsAt},
	})
	if err != nil {
		return err
	}
	envelope, err := attest.SignBy(ctx, payload, by)
	if err != nil {
		return err
	}
	i.Authority, i.Opening = by.Public().ID(), string(envelope)
	return writePublic(dir, by.Public())
}

func writePublic(dir string, key identity.PublicKey) error {
	der, err := key.DER()
	if err == nil {
		name := filepath.Join(dir, fmt.Sprintf(publicPattern, key.ID().Hex()[:16]))
		err = diskio.WriteFile(diskio.OS{}, name, pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der}), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	return nil
}

func readPublic(name string) (identity.PublicKey, error) {
	b, err := diskio.ReadFile(name, maxState)
	if err != nil {
		return identity.PublicKey{}, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != publicType {
		return identity.PublicKey{}, errors.New("want a PEM block of type " + publicType)
	}
	for _, alg := range []predicate.Algorithm{predicate.Ed25519, predicate.ECDSAP256} {
		if key, err := identity.ParsePublicKey(alg, block.Bytes); err == nil {
			return key, nil
		}
	}
	_, err = x509.ParsePKIXPublicKey(block.Bytes)
	return identity.PublicKey{}, errors.Join(errors.New("it is no Ed25519 and no P-256 key"), err)
}

// openerOf is the key that signed the first statement of an identity's epoch.
func openerOf(dir string, i Identity) (identity.PublicKey, error) {
	keys, err := PublicKeys(dir)
	if err != nil {
		return identity.PublicKey{}, err
	}
	key, ok := keys[i.Authority]
	if !ok {
		return key, fmt.Errorf("read identity in %s: the public key of %s, which certifies the agent's, is not in the folder", dir, i.Authority)
	}
	return key, nil
}

// PublicKeys are those of every key that a folder has had, and of those that
// certify them, by their identifiers.
func PublicKeys(dir string) (map[predicate.Digest]identity.PublicKey, error) {
	out := map[predicate.Digest]identity.PublicKey{}
	for _, pattern := range []string{keyPattern, publicPattern} {
		files, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf(pattern, "*")))
		if err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		for _, f := range files {
			key, err := publicOf(f, pattern == keyPattern)
			if err != nil {
				return nil, fmt.Errorf("read key %s: %w", filepath.Base(f), err)
			}
			out[key.ID()] = key
		}
	}
	return out, nil
}

func publicOf(name string, private bool) (identity.PublicKey, error) {
	if !private {
		return readPublic(name)
	}
	key, err := readKey(filepath.Dir(name), filepath.Base(name))
	if err != nil {
		return identity.PublicKey{}, err
	}
	return key.Public(), nil
}

// DropFormerKeys leaves of every private key but the present one and the ones
// that are on their way the public half alone: who takes the folder later cannot
// sign for an epoch that is over.
func DropFormerKeys(dir string, i Identity) error {
	keep := map[string]bool{i.KeyFile: true}
	var c candidate
	var p pending
	for file, v := range map[string]struct {
		state any
		name  *string
	}{candidateFile: {&c, &c.KeyFile}, rotationFile: {&p, &p.Identity.KeyFile}} {
		if _, err := readState(dir, file, v.state); err != nil {
			return err
		}
		keep[*v.name] = true
	}
	files, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf(keyPattern, "*")))
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	for _, f := range files {
		if keep[filepath.Base(f)] {
			continue
		}
		key, err := readKey(dir, filepath.Base(f))
		if err != nil {
			return err
		}
		if err := writePublic(dir, key.Public()); err != nil {
			return err
		}
		if err := diskio.Remove(diskio.OS{}, f); err != nil {
			return fmt.Errorf("drop former key: %w", err)
		}
	}
	return nil
}
