package matrix

// Error codes of Matrix that the gateway sends or distinguishes.
const (
	CodeMissingToken  = "M_MISSING_TOKEN"
	CodeUnknownToken  = "M_UNKNOWN_TOKEN"
	CodeForbidden     = "M_FORBIDDEN"
	CodeGuest         = "M_GUEST_ACCESS_FORBIDDEN"
	CodeUnrecognized  = "M_UNRECOGNIZED"
	CodeNotJSON       = "M_NOT_JSON"
	CodeBadJSON       = "M_BAD_JSON"
	CodeInvalidParam  = "M_INVALID_PARAM"
	CodeMissingParam  = "M_MISSING_PARAM"
	CodeLimitExceeded = "M_LIMIT_EXCEEDED"
	CodeTooLarge      = "M_TOO_LARGE"
	CodeUnknown       = "M_UNKNOWN"
)
