// Package keys opens the holder of an agent's enrolled key, which its enrolment
// names: a file of its folder, AWS KMS, or a PKCS #11 token. It guarantees that
// opening one makes no key and signs nothing.
package keys

import (
	"context"
	"fmt"
	"strings"

	"github.com/cavra/cavra/agent/internal/keys/awskms"
	"github.com/cavra/cavra/agent/internal/keys/pkcs11"
	"github.com/cavra/cavra/sdk/identity"
)

// File is the holder that is a file of the agent's folder.
const File = "file"

// Remote reports whether a holder is elsewhere than in the agent's folder.
func Remote(holder string) bool { return holder != "" && holder != File }

// Validate reports whether a holder can be one: file, kms:KEY or a PKCS #11 URI.
func Validate(holder string) error {
	switch {
	case !Remote(holder), strings.HasPrefix(holder, "kms:"):
		return nil
	case strings.HasPrefix(holder, "pkcs11:"):
		_, err := pkcs11.ParseURI(holder)
		return err
	}
	return fmt.Errorf("key holder %q: want file, kms:ARN, or pkcs11:token=…;object=…?module-path=…", holder)
}

// Open opens a holder that is not a file. Ask gets a token's PIN from a person;
// nil where nobody can be asked.
func Open(ctx context.Context, holder string, ask func() (string, error)) (identity.Holder, error) {
	if err := Validate(holder); err != nil {
		return nil, err
	}
	if id, ok := strings.CutPrefix(holder, "kms:"); ok {
		return awskms.Open(ctx, id)
	}
	u, err := pkcs11.ParseURI(holder)
	if err != nil {
		return nil, err
	}
	return pkcs11.Open(ctx, pkcs11.Config{URI: u, Ask: ask})
}
