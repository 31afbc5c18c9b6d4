// Package awskms holds an agent's key in AWS KMS. It guarantees that only the
// SHA-256 of what is signed goes there (KMS takes messages of 4 KB at most, and
// a statement is longer), that the key is one for signing with ECDSA on P-256,
// and that no signature is given out which does not verify.
package awskms

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// timeout bounds one call, the SDK's own tries again included.
const timeout = 30 * time.Second

// Key is a key in KMS.
type Key struct {
	client *kms.Client
	id     string
	public identity.PublicKey
}

// Open finds a key by its ARN, or by its identifier or alias in the region that
// the environment names. Credentials and the endpoint come from where the AWS
// SDK looks for them: environment, profile, or the machine's role. It makes one
// call, for the public key.
func Open(ctx context.Context, id string) (*Key, error) {
	if id == "" {
		return nil, errors.New("open KMS key: name it by its ARN: kms:arn:aws:kms:…")
	}
	var options []func(*config.LoadOptions) error
	if a, err := arn.Parse(id); err == nil {
		if a.Service != "kms" {
			return nil, fmt.Errorf("open KMS key: %s is an ARN of %s", id, a.Service)
		}
		options = append(options, config.WithRegion(a.Region))
	} else if strings.HasPrefix(id, "arn:") {
		return nil, fmt.Errorf("open KMS key: %w", err)
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open KMS key: %w", err)
	}
	k := &Key{client: kms.NewFromConfig(cfg), id: id}
	if err := k.load(ctx); err != nil {
		return nil, fmt.Errorf("open KMS key %s: %w", id, err)
	}
	return k, nil
}

func (k *Key) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := k.client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(k.id)})
	if err != nil {
		return err
	}
	if out.KeyUsage != types.KeyUsageTypeSignVerify {
		return fmt.Errorf("it is for %s: want a key for SIGN_VERIFY", out.KeyUsage)
	}
	if k.public, err = identity.ParsePublicKey(predicate.ECDSAP256, out.PublicKey); err != nil {
		return fmt.Errorf("want a key of ECC_NIST_P256: %w", err)
	}
	return nil
}

// Sign signs the SHA-256 of message, in one call.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	sum := sha256.Sum256(message)
	out, err := k.client.Sign(ctx, &kms.SignInput{
		KeyId: aws.String(k.id), Message: sum[:], MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
	})
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.Describe(), err)
	}
	if !k.public.Verify(message, out.Signature) {
		return nil, fmt.Errorf("sign with %s: the signature is not that of the key over the digest", k.Describe())
	}
	return out.Signature, nil
}

// Public returns the public half, as it was when the key was opened.
func (k *Key) Public() identity.PublicKey { return k.public }

// Describe names the key.
func (k *Key) Describe() string { return "AWS KMS " + k.id }
