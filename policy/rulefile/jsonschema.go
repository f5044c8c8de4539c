package rulefile

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"cel.dev/cel-go/common/types"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
)

// jsonObject is a JSON object.
type jsonObject = map[string]any

// JSONSchema returns a JSON Schema (draft 2020-12) of rule files, for editors
// that complete and check YAML. Under $defs, input and decision describe an
// [policy.Input] and a [policy.Decision] as webhooks and audit logs have them.
func JSONSchema() ([]byte, error) {
	schema := fileSchema()
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Rule file of discharger"
	schema["$defs"] = jsonObject{
		"input":    inputSchema(),
		"decision": decisionSchema(),
		"policy":   policySchema(),
		"rule":     ruleSchema(),
		"then":     thenSchema(),
		"test":     testSchema(),
		"webhook":  webhookSchema(),
		"name":     jsonObject{"type": "string", "pattern": nameForm.String()},
		"listName": jsonObject{"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"},
		"duration": jsonObject{"type": "string", "pattern": durationPattern, "examples": []string{"90s", "5m", "30d"}},
	}
	out, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JSON schema: %w", err)
	}
	return append(out, '\n'), nil
}

const durationPattern = `^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`

func refTo(def string) jsonObject { return jsonObject{"$ref": "#/$defs/" + def} }

func objectOf(properties jsonObject, required ...string) jsonObject {
	o := jsonObject{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func listOf(of jsonObject, most int) jsonObject {
	return jsonObject{"type": "array", "items": of, "maxItems": most}
}

func stringOf(most int, doc string) jsonObject {
	return jsonObject{"type": "string", "maxLength": most, "description": doc}
}

func mapOf(names string, of jsonObject, most int) jsonObject {
	return jsonObject{"type": "object", "propertyNames": refTo(names), "additionalProperties": of, "maxProperties": most}
}

func fileSchema() jsonObject {
	return objectOf(jsonObject{
		"version":  jsonObject{"const": 1},
		"networks": mapOf("listName", listOf(stringOf(maxEntry, "An address, or a network such as 192.0.2.0/24."), maxList), maxLists),
		"lists":    mapOf("listName", listOf(stringOf(maxEntry, "A string."), maxList), maxLists),
		"webhooks": mapOf("name", refTo("webhook"), maxWebhooks),
		"policies": mapOf("name", refTo("policy"), maxPolicies),
	}, "version", "policies")
}

func policySchema() jsonObject {
	return objectOf(jsonObject{
		"doc":       stringOf(maxDoc, "Purpose of the policy."),
		"rules":     listOf(refTo("rule"), maxRules),
		"otherwise": refTo("then"),
		"tests":     listOf(refTo("test"), maxTests),
	}, "otherwise")
}

func ruleSchema() jsonObject {
	return objectOf(jsonObject{
		"name": refTo("name"),
		"doc":  stringOf(maxDoc, "Why the rule is there."),
		"when": stringOf(4*cel.MaxExpression, "A CEL expression that is true or false. Variables: "+variableList()+"."),
		"then": refTo("then"),
	}, "name", "when", "then")
}

// variableList names the variables of expressions.
func variableList() string {
	var names []string
	for _, f := range cel.Fields() {
		names = append(names, f.Path())
	}
	return strings.Join(append(names, "networks.*", "lists.*"), ", ")
}

func effectSchema() jsonObject {
	return jsonObject{"enum": policy.Effects(), "description": "allow the proposal of the service, deny this request, revoke the session, " +
		"revoke_user all of the user's, reauth: log in again and keep the device's keys, or defer: come back later."}
}

func thenSchema() jsonObject {
	parts := thenParts()
	parts["ttl"] = stringOf(4*cel.MaxExpression, "Lifetime of the discharge: a duration, or a CEL expression that yields one.")
	long := objectOf(parts, "effect")
	hook := objectOf(jsonObject{"webhook": refTo("name")}, "webhook")
	return jsonObject{"oneOf": []jsonObject{effectSchema(), long, hook}}
}

// thenParts are the parts of a decision that rules, tests and webhooks share.
func thenParts() jsonObject {
	return jsonObject{
		"effect":        effectSchema(),
		"ttl":           refTo("duration"),
		"caveats":       listOf(stringOf(policy.MaxCaveat, "A first-party caveat to add; {expression} is filled in."), policy.MaxCaveats),
		"code":          jsonObject{"type": "string", "pattern": "^[a-z0-9_]*$", "maxLength": policy.MaxCode, "description": "The reason in the answer to the client."},
		"message":       stringOf(policy.MaxMessage, "A sentence in the answer to the client."),
		"soft_logout":   jsonObject{"type": "boolean", "description": "The client keeps its device's keys."},
		"labels":        labelsSchema(policy.MaxLabels, "Labels to store with the session; an empty one removes."),
		"keep_sessions": jsonObject{"type": "integer", "minimum": 1, "description": "At activation: end the user's least recently used sessions beyond this many."},
		"retry_after":   refTo("duration"),
	}
}

func labelsSchema(most int, doc string) jsonObject {
	return jsonObject{
		"type": "object", "description": doc, "maxProperties": most,
		"propertyNames":        jsonObject{"maxLength": policy.MaxLabelKey, "minLength": 1},
		"additionalProperties": jsonObject{"type": "string", "maxLength": policy.MaxLabelValue},
	}
}

func decisionSchema() jsonObject {
	parts := thenParts()
	parts["rule"] = jsonObject{"type": "string", "description": "The rule that decided, as policy/rule. Ignored in a webhook's answer."}
	parts["hash"] = jsonObject{"type": "string", "description": "Identifies the rule files. Ignored in a webhook's answer."}
	return objectOf(parts, "effect")
}

func testSchema() jsonObject {
	expect := thenParts()
	expect["rule"] = jsonObject{"type": "string"}
	expect["error"] = jsonObject{"type": "string", "description": "Text in the error of a request that is undecided."}
	answer := jsonObject{"oneOf": []jsonObject{effectSchema(), {"enum": []string{"unavailable", "no_opinion"}}, objectOf(thenParts(), "effect")}}
	return objectOf(jsonObject{
		"name":     stringOf(maxEntry, "Purpose of the test."),
		"input":    patchSchema(),
		"webhooks": mapOf("name", answer, maxWebhooks),
		"expect":   jsonObject{"oneOf": []jsonObject{effectSchema(), {"const": Undecided}, objectOf(expect)}},
	}, "name", "expect")
}

func webhookSchema() jsonObject {
	return objectOf(jsonObject{
		"url":            jsonObject{"type": "string", "format": "uri"},
		"secret_file":    stringOf(4096, "File of the key that signs questions, at least 32 bytes; beside the rule file."),
		"ca_file":        stringOf(4096, "Certificates that the webhook's must be signed by, in PEM; default: the system's."),
		"timeout":        refTo("duration"),
		"on_error":       jsonObject{"enum": []string{"unavailable", "deny"}},
		"cache":          refTo("duration"),
		"allow":          listOf(stringOf(maxEntry, "A network the webhook may be in beside the public Internet."), maxList),
		"max_concurrent": jsonObject{"type": "integer", "minimum": 1, "maximum": 10000},
		"count_sessions": jsonObject{"type": "boolean", "description": "The webhook needs user.sessions."},
	}, "url", "secret_file")
}

// inputSchema describes an Input in JSON.
func inputSchema() jsonObject {
	schema := objectsOf(func(f cel.Field) jsonObject { return fieldSchema(f, false) })
	schema["required"] = []string{"now", "action", "policy", "replay", "homeserver", "user", "session", "request", "grant"}
	return schema
}

// patchSchema describes the input of a test, in which times may be relative
// and everything may be left out.
func patchSchema() jsonObject {
	schema := objectsOf(func(f cel.Field) jsonObject { return fieldSchema(f, true) })
	delete(schema["properties"].(jsonObject), "policy")
	return schema
}

func objectsOf(describe func(cel.Field) jsonObject) jsonObject {
	properties := jsonObject{}
	for _, name := range cel.Objects() {
		properties[name] = objectOf(jsonObject{})
	}
	for _, f := range cel.Fields() {
		into := properties
		if f.Object != "" {
			into = properties[f.Object].(jsonObject)["properties"].(jsonObject)
		}
		into[f.Name] = describe(f)
	}
	return objectOf(properties)
}

func fieldSchema(f cel.Field, patch bool) jsonObject {
	o := jsonObject{"description": f.Doc}
	switch f.Type.Kind() {
	case types.TimestampKind:
		o["type"] = "string"
		if !patch {
			o["format"] = "date-time"
		}
	case types.DurationKind:
		o["$ref"] = "#/$defs/duration"
	case types.BoolKind:
		o["type"] = "boolean"
	case types.IntKind:
		o["type"] = "integer"
		o["minimum"] = 0
		if f.Required {
			o["minimum"] = -1
		}
	case types.MapKind:
		return labelsSchema(int(f.Size), f.Doc)
	default:
		o["type"] = "string"
		o["maxLength"] = f.Size
		if f.Enum != nil {
			o["enum"] = f.Enum
		}
	}
	return o
}

// WriteFields writes the fields of expressions, with types and meanings, as
// text for people.
func WriteFields(w io.Writer) error {
	var b strings.Builder
	for _, f := range cel.Fields() {
		fmt.Fprintf(&b, "%s  (%s)\n    %s\n", f.Path(), cel.TypeName(f.Type), f.Doc)
		if f.Enum != nil {
			fmt.Fprintf(&b, "    One of %s.\n", strings.Join(f.Enum, ", "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
