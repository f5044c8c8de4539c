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

type jsonObject = map[string]any

// JSONSchema returns a JSON Schema (draft 2020-12) of rule files, for editors
// that complete and check YAML. Under $defs, input and decision describe
// [policy.Input] and [policy.Decision] in webhook requests and audit logs.
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
		return nil, fmt.Errorf("encode JSON schema: %w", err)
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
		"doc":  stringOf(maxDoc, "Purpose of the rule."),
		"when": stringOf(maxWhen, "Condition in CEL. Variables: "+variableList()+"."),
		"then": refTo("then"),
	}, "name", "when", "then")
}

// variableList returns the variables of expressions as text.
func variableList() string {
	var names []string
	for _, f := range cel.Fields() {
		names = append(names, f.Path())
	}
	return strings.Join(append(names, "networks.*", "lists.*"), ", ")
}

func effectSchema() jsonObject {
	return jsonObject{"enum": policy.Effects(), "description": "allow: the proposal of the service; deny: refuse this request; revoke: end the session; " +
		"revoke_user: end all sessions of the user; reauth: end the session, the client keeps its device keys; defer: refuse for now."}
}

func thenSchema() jsonObject {
	parts := thenParts()
	parts["ttl"] = stringOf(maxWhen, "Lifetime of the discharge: a duration, or a CEL expression of type duration.")
	long := objectOf(parts, "effect")
	hook := objectOf(jsonObject{"webhook": refTo("name")}, "webhook")
	return jsonObject{"oneOf": []jsonObject{effectSchema(), long, hook}}
}

// thenParts returns the parts of a decision of rules, tests and webhooks.
func thenParts() jsonObject {
	return jsonObject{
		"effect":        effectSchema(),
		"ttl":           refTo("duration"),
		"caveats":       listOf(stringOf(policy.MaxCaveat, "First-party caveat to add; an {expression} is replaced by its value."), policy.MaxCaveats),
		"code":          jsonObject{"type": "string", "pattern": "^[a-z0-9_]*$", "maxLength": policy.MaxCode, "description": "Reason in the answer to the client."},
		"message":       stringOf(policy.MaxMessage, "Sentence in the answer to the client."),
		"soft_logout":   jsonObject{"type": "boolean", "description": "The client keeps its device keys."},
		"labels":        labelsSchema(policy.MaxLabels, "Labels to store with the session; an empty value removes one."),
		"keep_sessions": jsonObject{"type": "integer", "minimum": 1, "description": "At activation: number of sessions of the user to keep; the least recently used ones end."},
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
	parts["rule"] = jsonObject{"type": "string", "description": "Rule that decided, as policy/rule. Ignored in the answer of a webhook."}
	parts["hash"] = jsonObject{"type": "string", "description": "Hash of the rule files. Ignored in the answer of a webhook."}
	return objectOf(parts, "effect")
}

func testSchema() jsonObject {
	expect := thenParts()
	expect["rule"] = jsonObject{"type": "string"}
	expect["error"] = jsonObject{"type": "string", "description": "Text in the error of an undecided request."}
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
		"secret_file":    stringOf(4096, "File with the key that signs requests, at least 32 bytes; relative to the rule file."),
		"ca_file":        stringOf(4096, "File with the certificate authorities of the webhook, in PEM; default: those of the system."),
		"timeout":        refTo("duration"),
		"on_error":       jsonObject{"enum": []string{"unavailable", "deny"}},
		"cache":          refTo("duration"),
		"allow":          listOf(stringOf(maxEntry, "Allowed network beside the public Internet."), maxList),
		"max_concurrent": jsonObject{"type": "integer", "minimum": 1, "maximum": 10000},
		"count_sessions": jsonObject{"type": "boolean", "description": "Send user.sessions."},
	}, "url", "secret_file")
}

// inputSchema returns the schema of an Input in JSON.
func inputSchema() jsonObject {
	schema := objectsOf(false)
	schema["required"] = append(cel.Names(cel.Fields(), ""), cel.Objects()...)
	return schema
}

// patchSchema returns the schema of the input of a test: times may be relative,
// and every part is optional.
func patchSchema() jsonObject {
	schema := objectsOf(true)
	delete(schema["properties"].(jsonObject), "policy")
	return schema
}

func objectsOf(patch bool) jsonObject {
	properties := jsonObject{}
	for _, name := range cel.Objects() {
		properties[name] = objectOf(jsonObject{})
	}
	for _, f := range cel.Fields() {
		into := properties
		if f.Object != "" {
			into = properties[f.Object].(jsonObject)["properties"].(jsonObject)
		}
		into[f.Name] = fieldSchema(f, patch)
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

// WriteFields writes the fields of expressions with types and documentation as text.
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
