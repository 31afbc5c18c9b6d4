package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// SchemaError says that the database's tables and this program do not fit.
type SchemaError struct {
	// What is the migration or the table.
	What    string
	Problem string
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("schema of clickhouse: %s: %s", e.What, e.Problem)
}

// permanent are ClickHouse's codes of errors that come again until a person has
// changed something: the query, the schema, the rights.
// Source: ClickHouse, src/Common/ErrorCodes.cpp.
var permanent = []int32{
	6,   // CANNOT_PARSE_TEXT
	16,  // NO_SUCH_COLUMN_IN_TABLE
	20,  // NUMBER_OF_COLUMNS_DOESNT_MATCH
	27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
	36,  // BAD_ARGUMENTS
	43,  // ILLEGAL_TYPE_OF_ARGUMENT
	44,  // ILLEGAL_COLUMN
	46,  // UNKNOWN_FUNCTION
	47,  // UNKNOWN_IDENTIFIER
	48,  // NOT_IMPLEMENTED
	50,  // UNKNOWN_TYPE
	53,  // TYPE_MISMATCH
	60,  // UNKNOWN_TABLE
	62,  // SYNTAX_ERROR
	73,  // UNKNOWN_FORMAT
	80,  // INCORRECT_QUERY
	81,  // UNKNOWN_DATABASE
	115, // UNKNOWN_SETTING
	117, // INCORRECT_DATA
	164, // READONLY
	192, // UNKNOWN_USER
	193, // WRONG_PASSWORD
	307, // TOO_MANY_BYTES
	349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
	497, // ACCESS_DENIED
	516, // AUTHENTICATION_FAILED
}

// Retryable reports whether the same call may succeed later with nothing changed
// on this side. An error that is not known is taken to be one that passes: what
// waits for it stays in Kafka, and the wait shows in the partition's health.
func Retryable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, clickhouse.ErrBatchInvalid) {
		return false
	}
	var schema *SchemaError
	if errors.As(err, &schema) {
		return false
	}
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return !slices.Contains(permanent, exception.Code)
	}
	return true
}
