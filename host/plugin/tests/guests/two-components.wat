;; Two components with a memory each, of which one calls the other with a string.
;; `two-components.wasm` is this by `wasm-tools parse` (with WAST_STRICT_COMPONENT_INDICES=0).
(component
  (component $says
    (core module $m (memory (export "m") 1) (func (export "f") (param i32 i32))
      (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func (export "f") (param "a" string) (canon lift (core func $i "f") (memory $i "m") (realloc (func $i "r"))))
  )
  (component $asks
    (import "f" (func $f (param "a" string)))
    (core module $l (memory (export "m") 1))
    (core instance $l (instantiate $l))
    (core func $g (canon lower (func $f) (memory $l "m")))
    (core module $m (import "" "f" (func (param i32 i32))) (func (export "g")))
    (core instance $i (instantiate $m (with "" (instance (export "f" (func $g))))))
    (func (export "g") (canon lift (core func $i "g")))
  )
  (instance $a (instantiate $says))
  (instance $b (instantiate $asks (with "f" (func $a "f"))))
)
