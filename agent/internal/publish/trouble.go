package publish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"
)

// What can stand between a statement and its acknowledgement. Every error that a
// broker is the cause of is one of these, by errors.Is.
var (
	// ErrAway says that no broker answers, or that the cluster is not ready:
	// waiting mends it.
	ErrAway = errors.New("the brokers are away")
	// ErrAuthentication says that the brokers refuse this agent's login: it was
	// revoked, or its password is not what it was.
	ErrAuthentication = errors.New("the brokers refuse this agent's login")
	// ErrAuthorization says that the brokers know this agent and do not let it
	// write the topic.
	ErrAuthorization = errors.New("the brokers do not let this agent write the topic")
	// ErrNoTopic says that the brokers have no such topic, or hide it.
	ErrNoTopic = errors.New("the brokers have no such topic")
	// ErrTooLarge says that a single message is larger than the brokers take.
	ErrTooLarge = errors.New("the brokers take no message of this size")
	// ErrCertificate says that the brokers' certificate is not one to trust.
	ErrCertificate = errors.New("the brokers' certificate is not trusted")
	// ErrRefused says that the brokers refuse what this agent sends for another
	// reason, which the error names.
	ErrRefused = errors.New("the brokers refuse what this agent sends")
)

// advice is what to do about each.
var advice = []struct {
	about error
	todo  string
}{
	{ErrAway, "nothing, if the brokers come back by themselves; otherwise see whether they run and whether this machine reaches them"},
	{ErrAuthentication, "ask the aggregator's administrator whether this agent was revoked; to let it in again, run cavra agent enroll --reenroll with a join token made for it, and start it again"},
	{ErrAuthorization, "ask the aggregator's administrator for the right to write and describe the topic; if this agent was revoked, run cavra agent enroll --reenroll with a join token made for it, and start it again"},
	{ErrNoTopic, "ask the brokers' administrator to create the topic, or for the right to describe it"},
	{ErrTooLarge, "ask the brokers' administrator to raise the topic's max.message.bytes to 1048588, Kafka's default"},
	{ErrCertificate, "ask the aggregator's administrator for the brokers' certificate authority, and enrol again if it was changed"},
	{ErrRefused, "ask the brokers' administrator: their log says more"},
}

func adviceFor(found error) string {
	for _, a := range advice {
		if errors.Is(found, a.about) {
			return a.todo
		}
	}
	return ""
}

// advised is the error with what to do about it.
func advised(found error) error { return fmt.Errorf("%w (%s)", found, adviceFor(found)) }

// codes are the protocol's answers that waiting alone does not mend.
// Source: https://kafka.apache.org/protocol#protocol_error_codes
var codes = []struct {
	code kafka.Error
	is   error
}{
	{kafka.SASLAuthenticationFailed, ErrAuthentication},
	{kafka.UnsupportedSASLMechanism, ErrAuthentication},
	{kafka.IllegalSASLState, ErrAuthentication},
	{kafka.SecurityDisabled, ErrAuthentication},
	{kafka.TopicAuthorizationFailed, ErrAuthorization},
	{kafka.ClusterAuthorizationFailed, ErrAuthorization},
	{kafka.UnknownTopicOrPartition, ErrNoTopic},
	{kafka.InvalidTopic, ErrNoTopic},
	{kafka.MessageSizeTooLarge, ErrTooLarge},
	{kafka.RecordListTooLarge, ErrTooLarge},
	{kafka.InvalidMessage, ErrRefused},
	{kafka.InvalidMessageSize, ErrRefused},
	{kafka.InvalidRecord, ErrRefused},
	{kafka.InvalidRequest, ErrRefused},
	{kafka.InvalidRequiredAcks, ErrRefused},
	{kafka.PolicyViolation, ErrRefused},
	{kafka.UnsupportedForMessageFormat, ErrRefused},
	{kafka.UnsupportedVersion, ErrRefused},
}

// classify wraps what a broker or a connection answered in the error that says
// what it means. What it does not know it takes for a cluster that is away,
// since trying again is then right.
func classify(err error) error {
	var each kafka.WriteErrors
	if errors.As(err, &each) {
		for _, e := range each {
			if e != nil {
				return classify(e)
			}
		}
	}
	for _, c := range codes {
		if errors.Is(err, c.code) {
			return fmt.Errorf("%w: %w", c.is, err)
		}
	}
	var tooLarge kafka.MessageTooLargeError
	if errors.As(err, &tooLarge) {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	var untrusted *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &untrusted) || errors.As(err, &unknown) {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// kindOf is the sentinel of an error that classify has returned.
func kindOf(found error) error {
	for _, a := range advice {
		if errors.Is(found, a.about) {
			return a.about
		}
	}
	return ErrAway
}

// standing is how delivery stands. One failure is nothing to speak of: a broker
// hangs up on idle connections, and a login that a dying broker cuts short looks
// like one that is refused. Two of a kind in a row are.
type standing struct {
	// kind is that of the last failure, and failures is how often it came in a
	// row.
	kind     error
	failures int
	// told is the kind that was logged last; nil while all is well.
	told  error
	since time.Time
}

// failed notes a failure, logs a change, and reports whether it is certain.
func (s *standing) failed(ctx context.Context, log *slog.Logger, found error) bool {
	kind := kindOf(found)
	if !errors.Is(kind, s.kind) {
		s.kind, s.failures = kind, 0
	}
	s.failures++
	if s.failures < 2 {
		log.DebugContext(ctx, "the brokers did not take a batch", slog.Any("error", found))
		return false
	}
	if errors.Is(s.told, kind) {
		log.DebugContext(ctx, "the brokers still do not take a batch", slog.Int("failures", s.failures), slog.Any("error", found))
		return true
	}
	if s.told == nil {
		s.since = time.Now()
	}
	s.told = kind
	level := slog.LevelError
	if errors.Is(kind, ErrAway) {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "statements are not delivered: they stay in the spool and are sent again",
		slog.Any("error", found), slog.String("what_to_do", adviceFor(found)))
	return true
}

func (s *standing) delivered(ctx context.Context, log *slog.Logger) {
	if s.told != nil {
		log.InfoContext(ctx, "statements are delivered again", slog.Duration("after", time.Since(s.since)))
	}
	*s = standing{}
}

// pause is how long to wait after the failures so far.
func (s *standing) pause(t timing) time.Duration {
	if errors.Is(s.kind, ErrAway) || s.failures < 2 {
		return t.away.after(s.failures)
	}
	return t.refused.after(s.failures - 1)
}
