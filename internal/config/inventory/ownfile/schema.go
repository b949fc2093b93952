package ownfile

import (
	"encoding/json"
	"strconv"
)

// Schema gives the JSON Schema (draft 2020-12) of a pgporter.yml, indented and with a line end. A file that it takes may still be
// refused: what several keys say together, and what selectors and options mean, is for `pgporter check`.
func Schema() []byte {
	top := object{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "pgporter.yml"},
		{"description", "Clusters under Patroni, their services and the ways to them, for pgporter."}}
	top = append(top, keyed(File, "")...)
	text, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		panic(err) // texts, numbers and booleans can always be written
	}
	return append(text, '\n')
}

// object is a JSON object whose keys keep their order.
type object []pair

type pair struct {
	key   string
	value any
}

// MarshalJSON writes the pairs in their order.
func (o object) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for i, p := range o {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(strconv.AppendQuote(text, p.key), ':')
		value, err := json.Marshal(p.value)
		if err != nil {
			return nil, err
		}
		text = append(text, value...)
	}
	return append(text, '}'), nil
}

// keyed is the schema of a mapping with these keys and no others.
func keyed(keys []Key, says string) object {
	o := object{{"type", "object"}}
	if says != "" {
		o = append(o, pair{"description", says})
	}
	properties, required := object{}, []string{}
	for _, k := range keys {
		properties = append(properties, pair{k.Name, k.schema()})
		if k.Required {
			required = append(required, k.Name)
		}
	}
	o = append(o, pair{"properties", properties}, pair{"additionalProperties", false})
	if len(required) > 0 {
		o = append(o, pair{"required", required})
	}
	return o
}

func (k Key) schema() object {
	says := k.Says + "."
	if k.Default != "" {
		says += " Default: " + k.Default + "."
	}
	if k.Shape == Keyed {
		return keyed(k.Keys, says)
	}
	o := object{{"description", says}}
	switch k.Shape {
	case Text:
		o = append(o, pair{"type", "string"})
	case Number:
		o = append(o, pair{"type", "integer"}, pair{"minimum", k.Least}, pair{"maximum", k.Most})
	case Switch:
		o = append(o, pair{"type", "boolean"})
	case Word:
		o = append(o, pair{"enum", k.Words})
	case Dest:
		o = append(o, pair{"anyOf", []object{{{"enum", k.Words}}, {{"type", "integer"}, {"minimum", 1}, {"maximum", 65535}}}})
	case Wait:
		o = append(o, pair{"anyOf", []object{{{"enum", k.Words}}, {{"type", "string"}, {"pattern", `^([0-9]+(\.[0-9]+)?(us|ms|s|m|h))+$`}}, {{"enum", []any{0, "0"}}}}})
	case Texts:
		o = append(o, pair{"type", "array"}, pair{"items", object{{"type", "string"}}}, pair{"minItems", 1})
	case Listed:
		o = append(o, pair{"type", "array"}, pair{"items", keyed(k.Keys, "")})
	case Named:
		o = append(o, pair{"type", "object"}, pair{"propertyNames", object{{"pattern", k.NameForm}}}, pair{"additionalProperties", keyed(k.Keys, "")}, pair{"minProperties", 1})
	case Tags:
		o = append(o, pair{"type", "object"}, pair{"additionalProperties", object{{"type", []string{"string", "number", "boolean"}}}})
	}
	return o
}
