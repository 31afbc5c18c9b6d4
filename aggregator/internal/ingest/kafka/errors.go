package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
)

// OutOfRangeError says that offsets which were asked for are not in the log: the
// log's start has moved past them (retention), or its end is before them (the
// log was truncated or replaced). Both are loss that must be shown; neither goes
// away by asking again.
type OutOfRangeError struct {
	Topic     string
	Partition int
	// From is the offset that was asked for; To is the end of the range, not
	// included, or From if the range was open.
	From, To int64
	// LogStart is the first offset the log still holds and LogEnd the one
	// after its last.
	LogStart, LogEnd int64
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("read %s/%d: offsets [%d, %d) are outside the log's [%d, %d)",
		e.Topic, e.Partition, e.From, e.To, e.LogStart, e.LogEnd)
}

// StallError says that a partition could not be read for as long as the stall
// timeout allows. Its cause is what failed last.
type StallError struct {
	Topic     string
	Partition int
	Offset    int64
	After     time.Duration
	Err       error
}

func (e *StallError) Error() string {
	return fmt.Sprintf("read %s/%d at offset %d: no progress for %s: %v",
		e.Topic, e.Partition, e.Offset, e.After.Round(time.Millisecond), e.Err)
}

func (e *StallError) Unwrap() error { return e.Err }

// ErrNoProgress is the cause of a StallError when the broker answers, says that
// there is more, and does not send it.
var ErrNoProgress = errors.New("broker holds back records that it reports")

// ErrNotAssigned says that a partition does not belong to this consumer in the
// group's present generation, so that it must not commit for it.
var ErrNotAssigned = errors.New("partition is not assigned to this consumer")

// Retryable reports whether the same call may succeed later with nothing
// changed on this side. Wrong credentials, missing permissions and offsets that
// are gone are not retryable, and neither is an ended context.
func Retryable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var outOfRange *OutOfRangeError
	if errors.As(err, &outOfRange) {
		return false
	}
	for _, permanent := range []kafka.Error{
		kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState,
		kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
		kafka.SecurityDisabled, kafka.UnsupportedVersion, kafka.InvalidRequest, kafka.InvalidTopic,
		kafka.PolicyViolation, kafka.OffsetOutOfRange,
	} {
		if errors.Is(err, permanent) {
			return false
		}
	}
	var code kafka.Error
	if errors.As(err, &code) {
		return true // what is left of the protocol's errors is about the cluster's state
	}
	var stall *StallError
	var network net.Error
	return errors.As(err, &stall) || errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, ErrNoProgress) || errors.Is(err, errFrame)
}
