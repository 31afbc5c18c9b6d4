// Package vectors holds golden bytes: payloads and envelopes that every side
// must accept, and ones that every side must refuse. The tests of schemas, sdk,
// agent and aggregator all run over them, so that no two sides drift apart.
//
// The files under payload/ and envelope/ are written by the tests of predicate
// and attest with the flag -update, and reviewed as a change of contract.
package vectors

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

//go:embed payload envelope
var files embed.FS

// Seed is the Ed25519 seed (RFC 8032) of the key that signs the envelopes. It
// is public: nothing may trust it outside tests.
var Seed = [32]byte{'c', 'a', 'v', 'r', 'a', ' ', 't', 'e', 's', 't', ' ', 'v', 'e', 'c', 't', 'o', 'r', 's'}

// Vector is one golden file.
type Vector struct {
	// Name is the file's name without its ending; it says what the case is.
	Name string
	Data []byte
}

// AcceptedPayloads are statements in their canonical spelling.
func AcceptedPayloads() ([]Vector, error) { return load("payload/accept") }

// RefusedPayloads are bytes that are no statement.
func RefusedPayloads() ([]Vector, error) { return load("payload/refuse") }

// AcceptedEnvelopes are envelopes that the key of Seed signed.
func AcceptedEnvelopes() ([]Vector, error) { return load("envelope/accept") }

// RefusedEnvelopes are envelopes that must not be opened, or not verify with
// the key of Seed.
func RefusedEnvelopes() ([]Vector, error) { return load("envelope/refuse") }

func load(dir string) ([]Vector, error) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, fmt.Errorf("load vectors: %w", err)
	}
	var out []Vector
	for _, e := range entries {
		b, err := files.ReadFile(path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("load vectors: %w", err)
		}
		out = append(out, Vector{Name: strings.TrimSuffix(e.Name(), ".json"), Data: b})
	}
	return out, nil
}
