package kafka

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// usage is the size of the log: what was measured plus what has come since.
type usage struct {
	dir   string
	limit int64
	now   atomic.Int64
}

func (u *usage) bytes() int64         { return u.now.Load() }
func (u *usage) add(n int64)          { u.now.Add(n) }
func (u *usage) full(more int64) bool { return u.now.Load()+more > u.limit }

func (u *usage) measure() error {
	var total int64
	err := filepath.WalkDir(u.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				total += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // trimmed meanwhile
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("measure log folder: %w", err)
	}
	u.now.Store(total)
	return nil
}

// lock keeps a second broker out of the folder. The lock goes with the process.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock log folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // the lock's error is the one to report
		return nil, fmt.Errorf("lock log folder %s: another process uses it: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil // nothing was written to it
}

// kfake keeps logins in sasl.json and prefers them to the ones it is started
// with, so that a changed password of the superuser would lock the aggregator
// out of its own broker. The entry is therefore written here before each start.

const (
	saslFile      = "sasl.json"
	saslVersion   = 1
	saslMaxBytes  = 64 << 20
	saltBytes     = 16
	pbkdf2Rounds  = 4096
	scramMechName = "SCRAM-SHA-256"
)

type saslState struct {
	Version  int                        `json:"version"`
	Plain    json.RawMessage            `json:"plain,omitempty"`
	Scram256 map[string]json.RawMessage `json:"scram256,omitempty"`
	Scram512 json.RawMessage            `json:"scram512,omitempty"`
}

type scramEntry struct {
	Mechanism  string `json:"mechanism"`
	Salt       string `json:"salt"`
	SaltedPass string `json:"salted_pass"`
	Iterations int    `json:"iterations"`
}

// setSuperuser makes the configured password the one that counts.
func setSuperuser(dir, user, password string) error {
	path := filepath.Join(dir, saslFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a first start: kfake takes the login it is given
	}
	if err != nil {
		return fmt.Errorf("read logins: %w", err)
	}
	if info.Size() > saslMaxBytes {
		return fmt.Errorf("read logins: %s has %d bytes", path, info.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read logins: %w", err)
	}
	var state saslState
	if err := json.Unmarshal(raw, &state); err != nil {
		return fmt.Errorf("read logins: %s: %w", path, err)
	}
	if state.Version != saslVersion {
		return fmt.Errorf("read logins: %s has version %d, want %d", path, state.Version, saslVersion)
	}
	entry, err := newScramEntry(password)
	if err != nil {
		return err
	}
	if state.Scram256 == nil {
		state.Scram256 = map[string]json.RawMessage{}
	}
	if state.Scram256[user], err = json.Marshal(entry); err != nil {
		return fmt.Errorf("encode login: %w", err)
	}
	if raw, err = json.Marshal(state); err != nil {
		return fmt.Errorf("encode logins: %w", err)
	}
	return replaceFile(path, raw)
}

func newScramEntry(password string) (scramEntry, error) {
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return scramEntry{}, fmt.Errorf("make salt: %w", err)
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, pbkdf2Rounds, sha256.Size)
	if err != nil {
		return scramEntry{}, fmt.Errorf("derive login: %w", err)
	}
	return scramEntry{
		Mechanism: scramMechName, Iterations: pbkdf2Rounds,
		Salt: base64.StdEncoding.EncodeToString(salt), SaltedPass: base64.StdEncoding.EncodeToString(salted),
	}, nil
}

// replaceFile puts a file in the place of another for good or not at all.
func replaceFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return fmt.Errorf("write logins: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when all went well
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write logins: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
