// Package enrol gets an agent its identity: a key that is made here and never
// leaves, and, for a one-time join token, the tenant, the agent's identifier,
// the epoch, and the way to its topic.
package enrol

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"github.com/cavra/cavra/agent/internal/awsjoin"
	"github.com/cavra/cavra/agent/internal/certificate"
	"github.com/cavra/cavra/agent/internal/httpclient"
	enrolv1 "github.com/cavra/cavra/schemas/gen/cavra/enrol/v1"
	"github.com/cavra/cavra/schemas/gen/cavra/enrol/v1/enrolv1connect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

// The files of an agent's folder that are secret.
const (
	IdentityFile = "identity.json"
	NameKeyFile  = "names.key"
	keyPattern   = "key-%s.pem"

	nameKeyBytes = 32
	proofPrefix  = "cavra-enrol-v1\n"
	timeout      = 30 * time.Second
	maxAnswer    = 1 << 20
	maxAuthority = 1 << 20
)

// Identity is what an enrolment gave.
type Identity struct {
	Tenant     string               `json:"tenant"`
	Agent      string               `json:"agent"`
	Epoch      uint64               `json:"epoch"`
	EpochCause predicate.EpochCause `json:"epoch_cause"`
	KeyID      predicate.Digest     `json:"key_id"`
	// KeyFile is the private key's file, in the same folder.
	KeyFile string `json:"key_file"`
	// Begun says that the epoch has its first statement in the spool.
	Begun  bool   `json:"begun"`
	Server string `json:"server"`
	Kafka  Access `json:"kafka"`
	SigningKey
	// ConfigurationKey is what the aggregator signs configurations with, PKIX DER.
	ConfigurationKey []byte `json:"configuration_key,omitempty"`
}

// Access is the way to the topic, as the aggregator gave it.
type Access struct {
	Brokers   []string `json:"brokers"`
	Topic     string   `json:"topic"`
	Mechanism string   `json:"mechanism"`
	Username  string   `json:"username"`
	Password  string   `json:"password"`
	TLS       bool     `json:"tls"`
	CA        string   `json:"ca,omitempty"`
}

// LogValue shows everything but the password.
func (a Access) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("brokers", a.Brokers), slog.String("topic", a.Topic),
		slog.String("mechanism", a.Mechanism), slog.String("username", a.Username), slog.Bool("tls", a.TLS))
}

// LogValue shows who it is and no secret.
func (i Identity) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", i.Tenant), slog.String("agent", i.Agent), slog.Uint64("epoch", i.Epoch), slog.Any("kafka", i.Kafka))
}

// ErrEnrolled says that the folder holds an identity already.
var ErrEnrolled = errors.New("this folder is enrolled already; with a join token made for this agent, --reenroll opens a new epoch")

// ErrNotEnrolled says that the folder holds no identity.
var ErrNotEnrolled = errors.New("this folder is not enrolled: run `cavra agent enroll` first")

// Request is an enrolment.
type Request struct {
	Dir       string
	Server    string
	JoinToken string
	// CAFile is the server's certificate authority; empty for the system's.
	CAFile   string
	Reenroll bool
	Version  string
	// AWS is the rule that gives the join token for this machine's identity at AWS;
	// nil where JoinToken is one.
	AWS *awsjoin.Rule
	// Holder holds the key that certifies the agent's; nil where the agent's own
	// file is all there is. HolderName is what opens it again.
	Holder     identity.Holder
	HolderName string
	// KeyLife is for how long the holder's key certifies a local one.
	KeyLife time.Duration
}

// Enrol makes a key, exchanges the token, and writes the identity. The key is
// on the disk before the request is made, so that after a lost answer the same
// token has the same result. Where another key certifies it, that signs twice:
// for the exchange, and the first statement of the epoch.
func Enrol(ctx context.Context, r Request) (Identity, error) {
	_, err := Load(r.Dir)
	switch {
	case err == nil && !r.Reenroll:
		return Identity{}, ErrEnrolled
	case err != nil && !errors.Is(err, ErrNotEnrolled):
		return Identity{}, err
	case err != nil && r.Reenroll:
		return Identity{}, fmt.Errorf("enrol anew: %w", err)
	}
	if err := diskio.MakeDir(diskio.OS{}, r.Dir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	candidate, err := takeCandidate(r)
	if err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	ca, err := r.authority()
	if err != nil {
		return Identity{}, err
	}
	certificates, err := certificate.Open(diskio.OS{}, r.Dir)
	if err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	tlsKey, err := certificates.Fresh()
	if err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	if r.AWS != nil {
		if r.JoinToken, err = joinByAWS(ctx, r, ca, candidate.key.Public().ID()); err != nil {
			return Identity{}, err
		}
	}
	answer, err := exchange(ctx, r, ca, candidate, tlsKey)
	if err != nil {
		return Identity{}, err
	}
	if err := keepCertificate(certificates, r.Server, ca, answer.GetService()); err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	if err := ensureNameKey(r.Dir); err != nil {
		return Identity{}, err
	}
	id := identityOf(answer, candidate, r.Server)
	if err := id.validate(); err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	if err := id.certify(ctx, r, candidate.key.Public()); err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	if err := id.save(r.Dir); err != nil {
		return Identity{}, err
	}
	return id, dropCandidate(r.Dir)
}

// keepCertificate takes the agent's first certificate into use. Where the
// aggregator has no service for agents, there is none.
func keepCertificate(f *certificate.Folder, server, ca string, a *enrolv1.AgentAccess) error {
	if err := f.SetEnrolment(certificate.Enrolment{Server: server, CA: ca}); err != nil {
		return err
	}
	if a == nil {
		return f.Discard()
	}
	way := certificate.Service{Address: a.GetAddress(), ServerName: a.GetServerName(), CA: a.GetCaPem()}
	if err := f.Certify(a.GetCertificate(), way); err != nil {
		return err
	}
	return f.Switch(a.GetGeneration())
}

func (i Identity) save(dir string) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err == nil {
		err = diskio.WriteFile(diskio.OS{}, filepath.Join(dir, IdentityFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// Begin notes that the epoch has its first statement: from then on a spool
// without it is a loss.
func Begin(dir string, i Identity) error {
	i.Begun = true
	return i.save(dir)
}

func identityOf(a *enrolv1.EnrolResponse, c candidate, server string) Identity {
	k := a.GetKafka()
	return Identity{
		Tenant: a.GetTenant(), Agent: a.GetAgent(), Epoch: a.GetEpoch(), EpochCause: predicate.EpochCause(a.GetEpochCause()),
		KeyID: c.key.Public().ID(), KeyFile: c.KeyFile, Server: server, SigningKey: SigningKey{MadeAt: &c.MadeAt},
		Kafka: Access{
			Brokers: k.GetBrokers(), Topic: k.GetTopic(), Mechanism: k.GetMechanism(), Username: k.GetUsername(),
			Password: k.GetPassword(), TLS: k.GetTls(), CA: k.GetCaPem(),
		},
		ConfigurationKey: a.GetService().GetConfigurationKey(),
	}
}

func (i Identity) validate() error {
	if err := errors.Join(predicate.ValidateID(i.Tenant), predicate.ValidateID(i.Agent), i.KeyID.Validate()); err != nil || i.Epoch == 0 {
		return fmt.Errorf("the identity is not whole: %w", err)
	}
	return nil
}

// joinByAWS gets a join token for this machine's identity at AWS.
func joinByAWS(ctx context.Context, r Request, ca string, key predicate.Digest) (string, error) {
	client, err := httpClient(r.Server, ca)
	if err != nil {
		return "", err
	}
	desk := enrolv1connect.NewEnrolmentServiceClient(client, r.Server, connect.WithReadMaxBytes(maxAnswer))
	token, err := awsjoin.Token(ctx, desk, *r.AWS, key)
	if called := new(connect.Error); errors.As(err, &called) {
		err = refusal(r.Server, err)
	}
	if err != nil {
		return "", fmt.Errorf("enrol by AWS: %w", err)
	}
	return token, nil
}

// exchange trades the token and the public key for an identity.
func exchange(ctx context.Context, r Request, ca string, c candidate, tlsKey *identity.Key) (*enrolv1.EnrolResponse, error) {
	client, err := httpClient(r.Server, ca)
	if err != nil {
		return nil, err
	}
	key := c.key
	certification, err := certification(ctx, r, c)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	der, err := key.Public().DER()
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	proof, err := key.Sign([]byte(proofPrefix + r.JoinToken))
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	wanted, err := tlsRequest(r.JoinToken, key, tlsKey)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	service := enrolv1connect.NewEnrolmentServiceClient(client, r.Server, connect.WithReadMaxBytes(maxAnswer))
	answer, err := service.Enrol(ctx, connect.NewRequest(&enrolv1.EnrolRequest{
		JoinToken: r.JoinToken, PublicKey: der, Algorithm: string(key.Public().Algorithm), Proof: proof, AgentVersion: r.Version,
		TlsKey: wanted, Certification: certification,
	}))
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", refusal(r.Server, err))
	}
	return answer.Msg, nil
}

// tlsRequest asks for a certificate of tlsKey, which key speaks for.
func tlsRequest(joinToken string, key, tlsKey *identity.Key) (*enrolv1.TLSKey, error) {
	der, err := tlsKey.Public().DER()
	if err != nil {
		return nil, err
	}
	bound := identity.Binding(identity.AtEnrolment, joinToken, key.Public().ID(), tlsKey.Public())
	proof, err := tlsKey.Sign(bound)
	if err != nil {
		return nil, err
	}
	consent, err := key.Sign(bound)
	return &enrolv1.TLSKey{PublicKey: der, Proof: proof, Consent: consent}, err
}

// refusal is what an error of a call says.
func refusal(server string, err error) error {
	var refused *connect.Error
	if errors.As(err, &refused) && refused.Code() != connect.CodeUnavailable && refused.Code() != connect.CodeUnknown &&
		refused.Code() != connect.CodeDeadlineExceeded && refused.Code() != connect.CodeCanceled {
		return fmt.Errorf("the aggregator refuses: %s", refused.Message())
	}
	return fmt.Errorf("reach %s: %w (is the aggregator running, and is --server right?)", server, err)
}

// authority reads the server's certificate authority, PEM; empty for the
// system's.
func (r Request) authority() (string, error) {
	if r.CAFile == "" {
		return "", nil
	}
	pem, err := diskio.ReadFile(r.CAFile, maxAuthority)
	if err != nil {
		return "", fmt.Errorf("enrol: read certificate authority: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return "", fmt.Errorf("enrol: %s holds no certificate", r.CAFile)
	}
	return string(pem), nil
}

func httpClient(server, ca string) (*http.Client, error) {
	c, err := httpclient.New(server, []byte(ca))
	if err != nil {
		return nil, fmt.Errorf("enrol: --server %w", err)
	}
	return c, nil
}

// ensureNameKey makes the key that hides names, unless there is one: a customer
// puts the same one into every agent's folder, so that names can be compared.
func ensureNameKey(dir string) error {
	name := filepath.Join(dir, NameKeyFile)
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := make([]byte, nameKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make name key: %w", err)
	}
	return diskio.WriteFile(diskio.OS{}, name, key, 0o600)
}

// Loaded is an identity with its secrets.
type Loaded struct {
	Identity
	Key     *identity.Key
	NameKey []byte
	// Opener is the key that signs the epoch's first statement, where that is not
	// Key: its signature is in Opening already.
	Opener *identity.PublicKey
}

// Load reads the identity of a folder.
func Load(dir string) (Loaded, error) {
	b, err := os.ReadFile(filepath.Join(dir, IdentityFile))
	if errors.Is(err, os.ErrNotExist) {
		return Loaded{}, fmt.Errorf("%s: %w", dir, ErrNotEnrolled)
	}
	var l Loaded
	if err == nil {
		err = json.Unmarshal(b, &l.Identity)
	}
	if err == nil {
		err = l.validate()
	}
	if err != nil {
		return Loaded{}, fmt.Errorf("read identity in %s: %w", dir, err)
	}
	if filepath.Base(l.KeyFile) != l.KeyFile {
		return Loaded{}, fmt.Errorf("read identity in %s: the key's file %q is not in the folder", dir, l.KeyFile)
	}
	pem, err := os.ReadFile(filepath.Join(dir, l.KeyFile))
	if err != nil {
		return Loaded{}, fmt.Errorf("read key: %w", err)
	}
	if l.Key, err = identity.ParsePEM(pem); err != nil {
		return Loaded{}, fmt.Errorf("read key %s: %w", l.KeyFile, err)
	}
	if l.Key.Public().ID() != l.KeyID {
		return Loaded{}, fmt.Errorf("read key %s: it is not the key that was enrolled", l.KeyFile)
	}
	if l.Authority != "" {
		opener, err := openerOf(dir, l.Identity)
		if err != nil {
			return Loaded{}, err
		}
		l.Opener = &opener
	}
	if l.NameKey, err = os.ReadFile(filepath.Join(dir, NameKeyFile)); err != nil {
		return Loaded{}, fmt.Errorf("read name key: %w", err)
	}
	if len(l.NameKey) < nameKeyBytes {
		return Loaded{}, fmt.Errorf("read name key: %d bytes, at least %d", len(l.NameKey), nameKeyBytes)
	}
	return l, nil
}
