package safetext

import "reflect"

// Deep makes every text that a value holds, in fields, lists and maps (their keys left alone), into what Line gives. The value
// is given by pointer. It is for what was read from JSON: a value without cycles.
func Deep(value any) { deep(reflect.ValueOf(value)) }

func deep(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			deep(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				deep(v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			deep(v.Index(i))
		}
	case reflect.Map:
		if v.Type().Elem().Kind() != reflect.String {
			return
		}
		for _, key := range v.MapKeys() {
			v.SetMapIndex(key, reflect.ValueOf(Line(v.MapIndex(key).String())).Convert(v.Type().Elem()))
		}
	case reflect.String:
		if v.CanSet() {
			if text := v.String(); len(text) > Most || !Is(text) {
				v.SetString(Line(text))
			}
		}
	}
}
