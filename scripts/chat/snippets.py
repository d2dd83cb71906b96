"""Small templates, each for one rule of the language, rendered with CONTEXT."""

CONTEXT = {
    "s": "Hello, World",
    "u": "Žluťoučký ßkůň ΌΣΟΣ ǆ ﬁ 你好 🎉",
    "blank": " \t\n x y  z \u3000",
    "lines": "one\ntwo\r\nthree\x0bfour\u2028five\n\nsix",
    "words": "the quick-brown fox--jumps over a very-very-long-hyphenated-word and supercalifragilisticexpialidocious dogs",
    "html": "<p class=\"x\">Tom &amp; 'Jerry' <!-- c --> > 5</p>",
    "i": 7,
    "n": -3,
    "z": 0,
    "f": 2.5,
    "big": 12345678901234567890123,
    "t": True,
    "no": None,
    "l": [3, 1, 2],
    "e": [],
    "strs": ["b", "A", "c", "B"],
    "mixed": [1, "a", None, True, 2.0, [1], {"k": "v"}],
    "d": {"b": 1, "A": 2, "c": {"x": [1, 2]}, "items": "shadow"},
    "people": [
        {"name": "Bob", "age": 30, "city": "ny", "tags": ["x"]},
        {"name": "ann", "age": 25, "city": "LA", "tags": []},
        {"name": "Cid", "age": 30, "city": "NY"},
    ],
}

SNIPPETS = []


def exprs(text):
    """Each line is an expression."""
    for line in text.strip().splitlines():
        if line.strip():
            SNIPPETS.append("{{ " + line.strip() + " }}")


def templates(*list):
    SNIPPETS.extend(list)


# Literals and printing.
exprs(r"""
1
-1
1_000
0x1F + 0b101 + 0o17
00
1.5
1e3
1.5e-7
1e16
123456789012345680.0
1e22
0.1 + 0.2
1e-5
-0.0
1E400
12345678901234567890
big
big + 0
big * 3 - 1
big // 7
big % 7
-big // 7
-big % 7
big / 3
big ** 3
2 ** 100
(-2) ** 63
(-2) ** 65
1 ** 99999999999999999999
(-1) ** 99999999999999999999
big < 1e30
big > 12345678901234567890122
big * 1.0
-big
big | abs
'%d' % big
'{:,}'.format(big)
9223372036854775807 * 9223372036854775807
9223372036854775807 + 1
-9223372036854775808 - 1
-9223372036854775808 // -1
'123456789012345678901234567890' | int
1e30 | int
big == big
big|string|length
'a' 'b' "c"
'\n\t\\\'\"\x41\u00e9\U0001F389\101\q'
'a\
b'
"it's"
'say "hi"'
['it\'s', "\"", "both'\""]
[1, 'a', none, true, 2.0, [], {}, (), (1,), (1, 2)]
{'a': 1, 'b': [1, 2], 3: none, (1, 2): 'x'}
{'a': 1, 'a': 2}
{1: 'int', 1.0: 'float', true: 'bool'}
['\x00\x1f\x7f\x80\xa0\xad\u200b\u2028\ufeff\U0001F389é']
true
True
none
None
()
(1)
(1,)
1, 2
[1, 2,]
{'a': 1,}
mixed
d
u
[u]
people
undefined_thing
[undefined_thing]
undefined_thing.x
undefined_thing['x']
d.nothing
d.nothing.x
d['nothing']['x']
l[10]
l[10].x
s.nothing
s.nothing()
no.x
no.x.y
i.foo
""")

# Arithmetic.
exprs(r"""
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
-7 % -3
7.5 // 2
-7.5 // 2
7.5 % 2
-7.5 % 2
7.5 % -2
5.0 % 2.5
-5.0 % 2.5
1 / 2
4 / 2
7 / 0
7 // 0
7 % 0
7.0 / 0
7.0 // 0
7.0 % 0
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
2 ** 3 ** 2
0 ** 0
0 ** -1
10 ** 18
1.5 ** 2
(-8) ** 3
4 ** 0.5
10 ** 20 ** -3
1.1 ** 30
3 ** -7
(-1.5) ** 5
1.5 ** 2000
0.5 ** 1100
1 + 2 * 3 - 4 / 2
(1 + 2) * 3
- -1
+1
-true
true + true
true * 3
1 + 1.0
1 == 1.0
1 == true
'1' == 1
9007199254740993 == 9007199254740992.0
9223372036854775807 + 0
9223372036854775807 - 1 + 1
-9223372036854775807 - 1
4611686018427387904 * 2 - 1
'a' + 'b' + 'c'
'a' + 1
1 + 'a'
'a' - 'b'
'a' * 3
3 * 'ab'
'ab' * 0
'ab' * -1
'a' * 'b'
'a' * 1.5
[1] * 2
[1] + [2, 3]
[1] + (2,)
(1,) + (2,)
[1] + 'a'
none + 1
1 + none
no + 'x'
'x' + no
undefined_thing + 1
1 + undefined_thing
'a' + undefined_thing
-undefined_thing
-'a'
'a' ~ 1 ~ none ~ true ~ 2.0 ~ [1] ~ undefined_thing
1 ~ 2 + 3
1 + 2 ~ 3
'%s and %s' % ('a', 1)
'%s' % 'x'
'%s' % [1, 2]
'%s' % none
'%d|%5d|%-5d|%05d|%+d|% d' % (1, 2, 3, 4, 5, 6)
'%x %X %o %#x %#o %c %c' % (255, 255, 8, 255, 8, 65, 'z')
'%f|%.2f|%8.3f|%-8.1f|%08.2f|%e|%g|%G' % (1.5, 2.345, 3.14159, 2.5, 3.1, 12345.678, 0.00001, 1e20)
'%i %u' % (3.9, -3.9)
'%5s|%-5s|%.2s' % ('ab', 'ab', 'abc')
'%r %a' % ('q', 1)
'%(x)s %(y)05d' % {'x': 1, 'y': 2}
'%(x)s' % {'y': 1}
'%*d' % (5, 3)
'%-*d|' % (5, 3)
'%.*f' % (2, 3.14159)
'%%'  % ()
'100%' % ()
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%d' % 'a'
'%y' % 1
'%' % 1
'x' % 1
'x' % {'a': 1}
'x' % [1]
'%.3d' % 7
""")

# Comparison and logic.
exprs(r"""
1 < 2
1 < 2 < 3
1 < 3 < 2
3 > 2 >= 2 != 1
1 < 'a'
none < 1
'a' < 'b'
'Z' < 'a'
'é' > 'z'
[1, 2] < [1, 3]
[1] < [1, 0]
[1, 'a'] < [1, 2]
(1, 2) < (1, 3)
{} < {}
[1, 2] == [1, 2.0]
[1] == (1,)
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
d == d
none == none
none == false
'' == none
undefined_thing == undefined_thing
undefined_thing == other_thing
undefined_thing == none
undefined_thing != none
undefined_thing < 1
undefined_thing in [1]
undefined_thing in 'abc'
1 in undefined_thing
'a' in 'abc'
'' in 'abc'
1 in 'abc'
2 in l
'b' in d
['b'] in d
5 not in l
'x' not in 'abc'
1 in 5
none in none
1 in [true]
not 1
not ''
not not 'a'
not undefined_thing
1 and 2
0 and 2
'' or 'x'
0 or none
1 or undefined_thing.x
not 1 == 2
not (1 in [1])
1 if true else 2
1 if false
(1 if false) is defined
(1 if false).x
'a' if false else 'b' if true else 'c'
1 if 0 else 2 + 3
true and 1 < 2 or false
[] or {} or 'empty'
""")

# Attributes, subscripts, slices.
exprs(r"""
d.b
d['b']
d.items
d['items']
d.items()
d.keys()
d.values()
d.items() | list
d.keys() | length
d.get('b')
d.get('zz')
d.get('zz', 5)
d.get('zz', default=5)
d.get(['x'])
d.pop('b')
d.update({'x': 1})
d.copy().b
d.c.x[1]
d['c']['x'][-1]
d.c.x.1
l.0
l[0]
l[-1]
l[-4]
l[1.0]
l['0']
l[true]
l[none]
l[:]
l[1:]
l[:-1]
l[::-1]
l[::2]
l[5:]
l[-2:]
l[2:0:-1]
l[::0]
l['a':]
l[10:-10:-1]
l[:none]
(1, 2, 3)[1:]
range(10)[2:5]
range(10)[2:5] | list
range(10)[::-3] | list
range(5)[-1]
range(5)[9]
s[0]
s[-1]
s[0:5]
s[::-1]
s[99]
s[7:]
u[0]
u[1:5]
u[::-1]
u[-1]
u[::3]
no[0]
no[1:]
5[0]
d[1:2]
d[l]
undefined_thing[0]
undefined_thing[1:]
l.append(4)
l.append
l.pop()
l.sort()
l.count(1)
l.index(2)
l.index(9)
l.copy()
(1, 2, 1).count(1)
(1, 2, 1).index(2)
s.__class__
d.__class__
l.__len__
s.format
i.real
f.is_integer()
(4.0).is_integer()
i.bit_length()
people[0].name
people[0]['name']
people[1].tags
people[2].tags
people[2].tags is defined
people[2].tags | length
d()
s()
none()
undefined_thing()
1()
""")

# Methods of strings.
exprs(r"""
s.upper() ~ s.lower() ~ s.title() ~ s.capitalize() ~ s.swapcase()
u.upper()
u.lower()
u.title()
u.capitalize()
"ßAbÉé ﬁ".swapcase()
u.casefold()
"they're bill's friends-of-x 3rd".title()
'ß'.upper() ~ 'ŉ'.upper() ~ 'ﬁ'.title() ~ 'ǆ'.title() ~ 'ΑΣ'.lower() ~ 'İ'.lower()
blank.strip() ~ '|'
blank.lstrip() ~ '|'
blank.rstrip() ~ '|'
'\x1c\x1da\x85\xa0'.strip()
'xxabcxx'.strip('x')
'xyabcyx'.strip('xy')
'xyabcyx'.lstrip('xy')
'xyabcyx'.rstrip('yx')
'abc'.strip('')
'abc'.strip(none)
'abc'.strip(1)
'ééaé'.strip('é')
blank.split()
blank.split(none, 1)
blank.rsplit(none, 1)
'a b c '.split(none, 1)
'a b c '.rsplit(none, 1)
'a,b,,c'.split(',')
'a,b,,c'.split(',', 1)
'a,b,,c'.rsplit(',', 1)
'a,b,,c'.rsplit(',')
'a,b,,c'.split(',', maxsplit=2)
'a,b,,c'.split(sep=',')
'a,b'.split('')
'a,b'.split(1)
''.split()
''.split(',')
'a--b--c'.rsplit('--', 1)
'aaa'.split('aa')
'aaa'.rsplit('aa')
'abc'.split(',', 0)
lines.splitlines()
lines.splitlines(true)
''.splitlines()
'a\n'.splitlines()
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'abc'.rpartition('=')
'abc'.partition('')
','.join(['a', 'b'])
','.join('abc')
','.join([1, 2])
','.join(d)
','.join(5)
'aaa'.replace('a', 'b')
'aaa'.replace('a', 'b', 2)
'aaa'.replace('a', 'b', -1)
'aaa'.replace('', '-')
'éa'.replace('', '-', 2)
'aaa'.replace('a', 1)
'aaa'.replace('a')
'abc'.startswith('a')
'abc'.startswith(('x', 'a'))
'abc'.startswith('b', 1)
'abc'.startswith('c', 1, 2)
'abc'.startswith('', 4)
'abc'.startswith(1)
'abc'.startswith(['a'])
'abc'.endswith('c')
'abc'.endswith(('b', 'c'))
'abc'.removeprefix('a') ~ 'abc'.removesuffix('c') ~ 'abc'.removeprefix('x')
'abcabc'.find('c')
'abcabc'.rfind('c')
'abcabc'.find('x')
'abcabc'.find('c', 3)
'abcabc'.find('c', 3, 5)
'éàé'.find('é', 1)
'abcabc'.index('b')
'abcabc'.index('x')
'abcabc'.rindex('b')
'aaaa'.count('aa')
'aaaa'.count('')
'aaaa'.count('a', 1, 3)
'ab'.center(7, '*') ~ 'abc'.center(6, '-') ~ 'abc'.center(2)
'ab'.ljust(5) ~ '|' ~ 'ab'.rjust(5, '.') ~ '|' ~ 'é'.ljust(3, '·')
'ab'.ljust(5, 'xx')
'42'.zfill(5) ~ '-42'.zfill(5) ~ '+4'.zfill(4) ~ 'abc'.zfill(2)
'a\tb\tcc\td'.expandtabs() ~ '|' ~ 'a\tb'.expandtabs(4) ~ '\t|'.expandtabs(0)
'abc'.isalpha() ~ 'ab1'.isalpha() ~ ''.isalpha() ~ 'é'.isalpha()
'12'.isdigit() ~ '²'.isdigit() ~ '½'.isdigit() ~ '१'.isdigit()
'12'.isdecimal() ~ '²'.isdecimal()
'½'.isnumeric() ~ 'Ⅷ'.isnumeric() ~ 'x'.isnumeric()
'a1'.isalnum() ~ 'a_'.isalnum()
' \t'.isspace() ~ ''.isspace() ~ '\x1c'.isspace()
'AB1'.isupper() ~ 'Ab'.isupper() ~ '1'.isupper()
'ab1'.islower() ~ 'Ab'.islower()
'Ab Cd'.istitle() ~ 'AB'.istitle() ~ 'Ab cd'.istitle()
'abc'.isascii() ~ 'é'.isascii()
'abc'.isidentifier() ~ '1a'.isidentifier() ~ '_a1'.isidentifier()
'abc\n'.isprintable() ~ 'abc'.isprintable()
'{} {}'.format(1, 'b')
'{0} {1} {0}'.format('a', 'b')
'{x} {y}'.format(x=1, y=[2])
'{0.name} {0[age]} {1[0]}'.format(people[0], l)
'{{}} {}'.format(1)
'{!r} {!s}'.format('a', 'b')
'{:5}|{:<5}|{:>5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd', 'e')
'{:5}|{:<5}|{:>5}|{:^5}|{:05}|{:+}|{: }'.format(1, 2, 3, 4, 5, 6, 7)
'{:d} {:x} {:X} {:o} {:b} {:#x} {:#b} {:c} {:,} {:_}'.format(1, 255, 255, 8, 5, 255, 5, 65, 1234567, 1234567)
'{:.2f} {:f} {:e} {:g} {:%} {:.1%} {:,.2f}'.format(1.005, 2.0, 12345.678, 0.0001, 0.25, 0.256, 1234567.891)
'{:10.3f}|{:<10.2f}|{:+.1f}|{:.3}|{:08.2f}'.format(3.14159, 2.5, 1.25, 2.0, -3.14159)
'{} {:.0f} {:g}'.format(1e16, 2.5, 1e16)
'{:.2}'.format('abcdef')
'{:{w}}|'.format('a', w=4)
'{:>{}}|'.format('a', 4)
'{:s}'.format(1)
'{:d}'.format('a')
'{:d}'.format(1.5)
'{}'.format()
'{a}'.format(b=1)
'{'.format(1)
'}'.format(1)
'{0} {}'.format(1, 2)
'{} {0}'.format(1, 2)
'{:,}'.format(true) ~ '{}'.format(true) ~ '{:5}'.format(none)
'{}'.format(none) ~ '{}'.format([1, 'a']) ~ '{}'.format(undefined_thing)
'{a[b]}'.format(a={'b': 5})
'{a}'.format_map({'a': 3})
'{:=+7}'.format(42)
'abc'.encode
s.upper
'a'.nothing()
'abc'.upper(1)
""")

# Filters.
exprs(r"""
-5 | abs ~ (2.5 | abs) ~ ('a' | string)
'a' | abs
people | map(attribute='name') | join(', ')
people | map(attribute='tags.0', default='-') | join(', ')
people | map(attribute='nope') | list
people | map('length') | list
['a', 'b'] | map('upper') | list
['a', 'b'] | map('replace', 'a', 'x') | list
['1', '2'] | map('int') | sum
[1] | map
[1] | map('nope') | list
[] | map('nope') | list
[1] | map(attribute='x', foo=1) | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('tags') | map(attribute='name') | list
people | selectattr('tags', 'defined') | list | length
people | rejectattr('tags', 'defined') | map(attribute='name') | first
people | rejectattr('tags') | list | length
people | selectattr('name', 'in', ['Bob']) | list
people | selectattr
[1, 2, 3, 4] | select('odd') | list
[1, 2, 3, 4] | select('divisibleby', 2) | list
[0, 1, '', 'a', none] | select | list
[0, 1, '', 'a', none] | reject | list
[1, 2] | select('nope') | list
[] | select('nope') | list
[1, 2, 3] | reject('gt', 1) | list
5 | select | list
l | sort
l | sort(reverse=true)
strs | sort
strs | sort(case_sensitive=true)
strs | sort(reverse=true)
people | sort(attribute='age') | map(attribute='name') | join
people | sort(attribute='age,name') | map(attribute='name') | join
people | sort(attribute='name', reverse=true) | map(attribute='name') | join
mixed | sort
d | sort
'cab' | sort
d | dictsort
{'b': 1, 'A': 3, 'c': 2} | dictsort
{'b': 1, 'A': 3, 'c': 2} | dictsort(true)
{'b': 1, 'A': 3, 'c': 2} | dictsort(false, 'value')
{'b': 1, 'A': 3, 'c': 2} | dictsort(by='value', reverse=true)
{'b': 1} | dictsort(by='x')
l | dictsort
undefined_thing | dictsort
strs | unique | list
['a', 'A', 'b', 'a'] | unique | join
['a', 'A', 'b', 'a'] | unique(true) | join
people | unique(attribute='age') | map(attribute='name') | list
[1, 1.0, true, 2] | unique | list
[[1], [1]] | unique | list
people | groupby('age')
people | groupby('city') | map(attribute=0) | list
people | groupby('city', case_sensitive=true) | map(attribute=0) | list
people | groupby('tags', default='none') | length
l | min ~ (l | max) ~ (strs | min) ~ (strs | max) ~ (strs | max(case_sensitive=true))
people | max(attribute='age')
[] | min
([] | min).x
[1, 'a'] | max
l | sum
[1.5, 2] | sum
people | sum(attribute='age')
[[1], [2]] | sum(start=[])
['a'] | sum
[] | sum
l | first ~ (l | last) ~ (s | first) ~ (s | last)
[] | first
[] | last
([] | first).x
d | first
d | last
l | map('string') | last
l | reverse | list
s | reverse
u | reverse
d | reverse | list
l | map('string') | reverse
5 | reverse
l | reverse
l | reverse | first
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | batch(0) | list
[1, 2, 3, 4, 5] | slice(2) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
[1, 2, 3, 4, 5] | slice(0) | list
'abc' | list
d | list
5 | list
range(3) | list
range(2, 10, 3) | list
range(5, 0, -2) | list
range(3)
range(1, 3, 2)
range(0)
range(1, 2, 0)
range(100001)
range('a')
l | length
s | length
u | length
d | length
undefined_thing | length
5 | length
none | length
l | map('string') | length
l | count
l | join
l | join(', ')
l | join(', ', attribute='real')
people | join('/', attribute='name')
'abc' | join('-')
5 | join
[1, none, 'a', undefined_thing] | join('|')
d | join(',')
undefined_thing | default('x')
undefined_thing | default
'' | default('x')
'' | default('x', true)
none | default('x')
none | d('x', boolean=true)
d.nope.x | default('x')
s | upper ~ (s | lower) ~ (s | title) ~ (s | capitalize)
5 | upper
none | lower
"they're bill's (test) [x] {y} <z> 3rd-fl a\tb" | title
u | title
blank | trim ~ '|'
'xxaxx' | trim('x')
'xxaxx' | trim(chars='x')
5 | trim
none | trim
undefined_thing | trim
'a b a' | replace('a', 'x')
'a b a' | replace('a', 'x', 1)
'a b a' | replace('a', 'x', count=1)
123 | replace(2, 'x')
'abc' | replace('', '-')
[1, 2] | replace('1', 'x')
'abc' | replace('a')
lines | indent
lines | indent(2, true)
lines | indent('> ', blank=true)
'a\n\nb\n' | indent(2)
'a\n\nb\n' | indent(2, true, true)
5 | indent
undefined_thing | indent
'' | indent(2, first=true)
'ab' | center(6) ~ '|'
'ab' | center(7) ~ '|'
'abc' | center(6) ~ '|'
5 | center(4) ~ '|'
'ab' | center | length
'%s-%s' | format('a', 1)
'%(a)s' | format(a=5)
'%s' | format('a', a=1)
'%s' | format
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, true)
'foo bar baz qux' | truncate(11)
'foo bar baz qux' | truncate(11, false, '...', 0)
'foo bar baz qux' | truncate(9, end='…')
'foo bar' | truncate(2)
'a b  c-d é' | wordcount
words | wordwrap(20)
words | wordwrap(10, false)
words | wordwrap(12, wrapstring='|')
words | wordwrap(15, break_on_hyphens=false)
'a b\n\nc   d  \n e' | wordwrap(3)
'ab' | wordwrap(0)
'42' | int ~ ('42.7' | int) ~ ('x' | int) ~ ('x' | int(5)) ~ (2.9 | int) ~ (-2.9 | int) ~ (true | int)
' 42 ' | int
'1_000' | int
'0x1f' | int(0, 16)
'1f' | int(base=16)
'0b11' | int(base=2)
'12' | int(0, 0)
'ff' | int
'1e3' | int
'inf' | int
'' | int
none | int
[] | int(7)
undefined_thing | int
'-5' | int
'+5' | int
'--5' | int
'1 2' | int
'١٢' | int
'3.14' | float
'x' | float
'x' | float(1.5)
'1e3' | float
'inf' | float
'nan' | float
' 2 ' | float
true | float
none | float
5 | float
undefined_thing | float
42.55 | round
42.55 | round(1)
42.55 | round(1, 'floor')
42.55 | round(1, 'ceil')
42 | round
42.5 | round
43.5 | round
2.675 | round(2)
1234 | round(-2)
1250 | round(-2)
1234.5 | round(-2)
-2.5 | round
'a' | round
2.5 | round(0, 'x')
true | round
1.5 | string ~ (none | string) ~ (true | string) ~ (l | string) ~ (d | string)
html | striptags
html | escape
html | e | e
html | forceescape
html | safe
html | safe | escape
(html | e) | forceescape
'<a>' | e ~ '<b>'
('<a>' | e) + '<b>'
'<a>' + ('<b>' | safe)
'<a>' ~ ('<b>' | safe)
('<%s>' | safe) % '<x>'
('<%s %d>' | safe) % ('<x>', 3)
('<{}>' | safe).format('<x>')
('<b>' | safe).join(['<x>', 'y'])
('<b>' | safe).replace('b', '<i>')
('<b>' | safe) | replace('b', '<i>')
('<b>' | safe).upper()
('<b>' | safe) * 2
('a<b' | safe).split('<')
('<b>' | safe)[0]
[('<b>' | safe)]
('<b>' | safe) is escaped
'<b>' is escaped
('<b>' | safe) is string
('<b>' | safe) == '<b>'
('<b>' | safe) | length
['<a>' | safe, '<b>'] | join('<')
('<b>' | safe) | tojson
('<b>' | safe).strip('<') + '<'
'a b/c?d=é&x' | urlencode
{'a b': 1, 'c': 'd e/f'} | urlencode
[('x', 1), ('y', 'é')] | urlencode
5 | urlencode
{'class': 'a b', 'id': none, 'x': '<'} | xmlattr
{'a': 1} | xmlattr(false)
{} | xmlattr
{'a b': 1} | xmlattr
1 | filesizeformat ~ (0 | filesizeformat) ~ (999 | filesizeformat) ~ (1000 | filesizeformat) ~ (123456789 | filesizeformat)
1536 | filesizeformat(true)
'12' | filesizeformat
d | items | list
undefined_thing | items | list
l | items | list
l | items
d | attr('b')
d | attr('items') is callable
s | attr('upper')() 
l | attr('x') is defined
s | attr(1)
l | nope
'x' | tojson
l | batch(2) | map('join', '-') | list
l | first(1)
l | join(sep='x')
l | default(1, 2, 3)
undefined_thing | list
undefined_thing | join
undefined_thing | upper
undefined_thing | string
undefined_thing | first
undefined_thing | last
undefined_thing | reverse | list
undefined_thing | sort
undefined_thing | sum
undefined_thing | replace('a', 'b')
undefined_thing | abs
undefined_thing | round
undefined_thing | tojson
undefined_thing | wordcount
undefined_thing | map('upper') | list
undefined_thing | unique | list
undefined_thing | e
""")

# tojson.
exprs(r"""
mixed | tojson
d | tojson
d | tojson(indent=2)
d | tojson(indent=0)
d | tojson(indent='--')
d | tojson(indent=none)
d | tojson(separators=(',', ':'))
d | tojson(indent=2, separators=(', ', ' : '))
d | tojson(sort_keys=true)
{'b': {'z': 1, 'y': 2}, 'a': []} | tojson(sort_keys=true, indent=1)
u | tojson
u | tojson(ensure_ascii=true)
u | tojson(true)
'\x00\x1f\x7f\x80\u2028"\\/\b\f\n\r\t<&>\'' | tojson
'\x7f\x80é' | tojson(ensure_ascii=true)
[] | tojson(indent=2) ~ ({} | tojson(indent=2)) ~ ([[], {}] | tojson(indent=2))
(1, 2) | tojson
{1: 'a', 2.5: 'b', true: 'c', none: 'd'} | tojson
{(1, 2): 'a'} | tojson
{1: 'a', 'b': 2} | tojson(sort_keys=true)
1e400 | tojson
-1e400 | tojson
('nan' | float) | tojson
[1.0, 1e16, 1e-7, -0.0, 0.1] | tojson
big | tojson
range(3) | tojson
d.items() | tojson
l | map('string') | tojson
namespace(a=1) | tojson
s.upper | tojson
d | tojson(4)
d | tojson(indent=1.5)
d | tojson(foo=1)
none | tojson ~ (true | tojson)
""")

# Tests.
exprs(r"""
undefined_thing is defined ~ (s is defined) ~ (d.x is defined) ~ (undefined_thing is undefined)
no is none ~ (s is none) ~ (no is not none) ~ (undefined_thing is none)
t is boolean ~ (1 is boolean) ~ (t is true) ~ (1 is true) ~ (false is false) ~ (0 is false)
1 is integer ~ (true is integer) ~ (1.0 is integer) ~ (big is integer)
1 is float ~ (1.0 is float)
1 is number ~ (true is number) ~ ('1' is number) ~ (1.5 is number)
s is string ~ (1 is string) ~ (undefined_thing is string)
d is mapping ~ (l is mapping) ~ (namespace() is mapping)
l is sequence ~ (s is sequence) ~ (d is sequence) ~ (1 is sequence) ~ (undefined_thing is sequence) ~ (range(2) is sequence) ~ (d.items() is sequence) ~ ((l | map('string')) is sequence)
l is iterable ~ (s is iterable) ~ (1 is iterable) ~ (none is iterable) ~ (undefined_thing is iterable) ~ (d.items() is iterable) ~ ((l | map('string')) is iterable)
s.upper is callable ~ (range is callable) ~ (s is callable) ~ (undefined_thing is callable) ~ (dict is callable) ~ (namespace is callable)
3 is odd ~ (2 is even) ~ (3 is even) ~ (-3 is odd)
'a' is odd
9 is divisibleby 3 ~ (9 is divisibleby(2)) 
9 is divisibleby 0
1 is eq 1 ~ (1 is equalto 1) ~ (1 is ne 2) ~ (1 is lt 2) ~ (1 is le 1) ~ (2 is gt 1) ~ (2 is ge 3) ~ (1 is lessthan 2) ~ (1 is greaterthan 2)
1 is lt 'a'
1 is in [1, 2] ~ (3 is not in [1, 2]) ~ ('a' is in 'abc')
1 is in 1
none is sameas none ~ (true is sameas true) ~ (1 is sameas true)
'abc' is lower ~ ('ABC' is upper) ~ ('Abc' is lower) ~ (5 is lower)
'upper' is filter ~ ('nope' is filter) ~ ('odd' is test) ~ ('nope' is test)
1 is not odd
not 1 is odd
1 is nope
s is string and l is sequence
s is defined and s
1 is odd if true else 'x'
[1, 2, 3] is contains 1
s is defined is true
undefined_thing.x is defined
d.x.y is defined
5 is divisibleby 5 and 1
""")

# Whitespace, comments, raw, lines.
templates(
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}  \nc",
    "a\n  {%- if true -%}  \n  b\n  {%- endif -%}  \nc",
    "a\n  {%+ if true %}\n  b\n  {%+ endif +%}\nc",
    "{% if true +%}\nx{% endif %}",
    "  {{ 1 }}\n  {{- 2 -}}  \n 3",
    "  {% set x = 1 %}  {{ x }}",
    "x {% set x = 1 %}\n y",
    "  {# comment #}\nx",
    "  {#- comment -#}  \nx",
    "a {#+ c +#}\nb",
    "{# multi\nline {{ x }} {% y %} #}z",
    "{# unclosed",
    "{% raw %}{{ x }} {% y %}{% endraw %}\nz",
    "a  {%- raw -%}  {{ x }}  {%- endraw -%}  b",
    "  {% raw %}\n x\n  {% endraw %}\n y",
    "{% raw %} never closed",
    "{%raw%}{%endraw%}",
    "a\r\nb\rc\n\n",
    "a\n",
    "\n",
    "",
    "  \n {% if 1 %}x{% endif %} \n",
    "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ {'a': {'b': {}}} }}",
    "{{ 1 }",
    "{{ 1 ",
    "{% if",
    "{{ }}",
    "{% %}",
    "{{ 'a }}",
    "{{ a ? b }}",
    "{{ (1 }}",
    "{{ 1) }}",
    "{{ [1, 2) }}",
    "{{ 1 2 }}",
    "{{ 'a\nb' }}",
    "{{-1}}",
    "{{ - 1 }}",
    "{{+1}}",
    "{ { x } }{ %x% }{",
    "{{'a'}}\n{{'b'}}\n",
    "{% print 1, 'a' %}",
    "{% do 1 %}",
    "{% unknown %}",
    "{% endif %}",
    "{% if true %}",
    "{% if true %}{% endfor %}",
    "{% for x in [1] %}{% endif %}",
    "{% if true %}a{% elif false %}b{% else %}c{% endif %}",
    "{% if false %}a{% elif true %}b{% else %}c{% endif %}",
    "{% if false %}a{% elif false %}b{% else %}c{% endif %}",
    "{% if false: %}a{% else: %}b{% endif %}",
    "{% if 1, 2 %}x{% endif %}",
    "{% if nope() %}x{% endif %}",
    "{% if true %}{% else %}{{ l|nope }}{% endif %}ok",
    "{% if false %}{{ l|nope }}{{ 1 is nope }}{% endif %}ok",
    "{% if true %}{{ l|nope }}{% endif %}",
    "{% if true %}{{ 1 is nope }}{% endif %}",
    "{% if false %}{% for x in l %}{{ x|nope }}{% endfor %}{% endif %}",
    "{{ 1 if true else (1|nope) }}",
)

# Loops.
templates(
    "{% for x in l %}{{ x }},{% endfor %}",
    "{% for x in l %}{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem }} {{ loop.nextitem }} {{ loop.cycle('a', 'b') }} {{ loop.depth }}{{ loop.depth0 }}\n{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }} {% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.length }}{{ x }} {% endfor %}",
    "{% for x in l if loop.index > 1 %}{{ x }}{% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}",
    "{% for x in l if x > 9 %}a{% else %}none{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{% break %}{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% break %}",
    "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in l %}{% else %}{% break %}{% endfor %}",
    "{% for y in l %}{% for x in [] %}{% else %}{% break %}{% endfor %}{{ y }}{% endfor %}|",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for k, v in d %}{{ k }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a }}{{ b }}{{ c }};{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% for a, b in [(1,)] %}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% for a, b in ['xy', 'zw'] %}{{ b }}{{ a }}{% endfor %}",
    "{% for c in u %}[{{ c }}]{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for x in undefined_thing %}a{% else %}b{% endfor %}",
    "{% for x in undefined_thing.y %}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}",
    "{% for x in l|sort %}{{ x }}{% endfor %}",
    "{% for x in l|map('string') %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "{% for x in l|map('string') %}{{ loop.length }}{{ x }}{{ loop.revindex }}{{ loop.nextitem }};{% endfor %}",
    "{% set g = l|map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}|{{ g|list }}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in l %}{% set outer = loop %}{% for y in [1] %}{{ outer.index }}{{ loop.index }}{% endfor %}{% endfor %}",
    "{% for x in l %}{{ loop.changed(x > 1) }}{% endfor %}",
    "{% for x in l %}{{ loop }}{% endfor %}",
    "{% for x in l %}{{ loop.nope }}{{ loop.nope is defined }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle() }}{% endfor %}",
    "{{ loop }}",
    "{{ loop.index }}",
    "{% for x in l %}{% set loop = 1 %}{% endfor %}",
    "{% for loop in l %}{% endfor %}",
    "{% for x in l recursive %}{{ x }}{% endfor %}",
    "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': [{'v': 3}]}]}, {'v': 4}] recursive %}{{ n.v }}@{{ loop.depth }}{% if n.c %}({{ loop(n.c) }}){% endif %} {% endfor %}",
    "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "{% for x in l %}{% set x = x + 1 %}{{ x }}{% endfor %}",
    "{% set y = 0 %}{% for x in l %}{% set y = y + x %}{{ y }} {% endfor %}{{ y }}",
    "{% set ns = namespace(y=0) %}{% for x in l %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}",
    "{% for x in l %}{% if loop.first %}{% set y = 1 %}{% endif %}{{ y }}{% endfor %}",
    "{% for x in l %}{{ y }}{% set y = x %}{% endfor %}{{ y }}",
    "{% for x in l %}{{ y }}{% if x %}{% set y = x %}{% endif %}{{ y }}{% endfor %}",
    "{% set y = 'o' %}{% for x in l %}{{ y }}{% if x > 1 %}{% set y = x %}{% endif %}{{ y }};{% endfor %}{{ y }}",
    "{% for x in l %}{% endfor %}{{ x }}",
    "{% set x = 9 %}{% for x in l %}{% endfor %}{{ x }}",
    "{% for x in x %}{% endfor %}",
    "{% set x = [1, 2] %}{% for x in x %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{{ i }}{% endfor %}{{ i }}",
    "{% for x in (1, 2) %}{{ x }}{% endfor %}",
    "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in [1, 2] if x else [3] %}{{ x }}{% endfor %}",
    "{% for x in ([1] if t else [2]) %}{{ x }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for x in [1, 2, 3] if x > ns.n %}{{ x }}{% set ns.n = 2 %}{% endfor %}",
    "{% for x in l if x == i - 6 %}{{ x }}{% endfor %}",
    "{% for x in d.values() %}{{ loop.length }}{{ x }}{% endfor %}",
    "{% for p in people %}{{ loop.previtem.name if loop.previtem is defined }}<{{ p.name }}>{{ loop.nextitem.name if loop.nextitem }}{% endfor %}",
    "{% for p in people %}{% if not loop.last and loop.nextitem.age == 30 %}{{ p.name }}{% endif %}{% endfor %}",
)

# Assignments, scopes, macros, calls.
templates(
    "{% set a = 1 %}{{ a }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set (a, b) = [1, 2] %}{{ a }}{{ b }}",
    "{% set a, b = 1 %}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set s = s ~ '!' %}{{ s }}",
    "{% if true %}{% set q = 1 %}{% endif %}{{ q }}",
    "{% if false %}{% set q = 1 %}{% endif %}{{ q }}{{ q is defined }}",
    "{% if false %}{% set i = 1 %}{% endif %}{{ i }}",
    "{% if t %}{% set i = 1 %}{% else %}{% set i = 2 %}{% endif %}{{ i }}",
    "{% if no %}{% elif t %}{% set i = 2 %}{% endif %}{{ i }}",
    "{% set x %}a{{ s }}b{% endset %}[{{ x }}]",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | replace('a', 'b') | upper %}a{% endset %}{{ x }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% set a = 1 %}{% set x %}{% set a = 2 %}{{ a }}{% endset %}{{ a }}{{ x }}",
    "{% for x in l %}{% set y %}{% if x == 1 %}{% break %}{% endif %}a{% endset %}{{ y }}{% endfor %}",
    "{% set x %}  a  {% endset %}{{ x is string }}{{ x|length }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns }}",
    "{% set ns = namespace(items=[1]) %}{{ ns.items }}",
    "{% set ns = namespace(_a=1) %}",
    "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "{% set ns = namespace() %}{{ ns.nope.x }}",
    "{% set ns = namespace(a=1) %}{% set ns.a, b = 5, 6 %}{{ ns.a }}{{ b }}",
    "{% set ns = namespace(a=1) %}{% set ns.a %}x{% endset %}{{ ns.a }}",
    "{% set d.x = 1 %}",
    "{% set nope.x = 1 %}",
    "{% set l[0] = 1 %}",
    "{% set 1 = 2 %}",
    "{% set none = 2 %}",
    "{% set a + b = 2 %}",
    "{% set ns = namespace(a=[]) %}{% for x in l %}{% set ns.a = ns.a + [x] %}{% endfor %}{{ ns.a }}",
    "{% set a = namespace(x=1) %}{% set b = a %}{% set b.x = 2 %}{{ a.x }}",
    "{{ namespace(1) }}",
    "{{ namespace([['a', 1]]) }}",
    "{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(a=5, c=6) }} {{ m(1, c=2) }}",
    "{% macro m(a) %}{{ a }}{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m() %}{{ kwargs.x }}{% endmacro %}{{ m(x=4) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}",
    "{% macro m(a, b=s) %}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(a, a) %}{% endmacro %}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set i = 1 %}{{ i }}{% endmacro %}{{ m() }}{{ i }}",
    "{% macro m() %}{{ i }}{% set i = 1 %}{{ i }}{% endmacro %}{{ m() }}{{ i }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro m() %}  x  {% endmacro %}[{{ m()|trim }}]{{ m() is string }}{{ m()|length }}",
    "{% macro m() %}x{% endmacro %}{{ m }}{{ m.name }}{{ m.arguments }}{{ m.nope }}",
    "{% macro m(x) %}{{ caller(x) }}{{ caller(x + 1) }}{% endmacro %}{% call(y) m(1) %}[{{ y }}]{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ s }}{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}{% endcall %}",
    "{% call 5 %}{% endcall %}",
    "{% macro m(caller) %}{{ caller() }}{% endmacro %}",
    "{% macro m(caller=none) %}{{ caller }}{% endmacro %}{{ m() }}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% for x in l %}{% macro m() %}{{ loop.index }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% for x in l %}{% call(y) m2(x) %}{{ x }}{{ y }}{% endcall %}{% endfor %}",
    "{% macro m2(v) %}<{{ caller(v) }}>{% endmacro %}{% for x in l %}{% call(y) m2(x) %}{{ x }}{{ y }}{% endcall %}{% endfor %}",
    "{% macro m(x) %}{% macro n() %}{{ x }}{% endmacro %}{{ n() }}{% endmacro %}{{ m(1) }}{{ m(2) }}",
    "{% macro m(l) %}{% for x in l %}{{ x }}{% if loop.last %}!{% endif %}{% endfor %}{% endmacro %}{{ m([1, 2]) }}{{ m('ab') }}",
    "{% set f = s.upper %}{{ f() }}",
    "{% set f = d.get %}{{ f('b') }}{{ f('x', 1) }}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(*[5], **{'b': 6}) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*5) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**l) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, a=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, 2) }}",
    "{% filter upper %}abc{{ s }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aaa{% endfilter %}",
    "{% filter nope %}{% endfilter %}",
    "{% filter length %}abc{% endfilter %}",
    "{% set x | length %}abc{% endset %}{{ x + 1 }}",
    "{% call range(3) %}{% endcall %}",
    "{{ [none, none]|sort }}{{ people|sort(attribute='nope')|length }}{{ ('ab'|safe)|list }}",
    "{{ [1, none]|sort }}",
    "{% for c in 'ab'|safe %}{{ c + '<' }}{% endfor %}",
    "{% filter trim %}  {% set q = 1 %}x {% endfilter %}{{ q is defined }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set z = 5 %}{{ z }}{% endwith %}{{ z }}",
    "{% with a = 1, b = a %}{{ b }}{% endwith %}",
    "{% with i = 9 %}{{ i }}{% set i = 3 %}{{ i }}{% endwith %}{{ i }}",
    "{% with a, b = 1, 2 %}{{ a }}{% endwith %}",
    "{% with (a, b) = (1, 2) %}{{ a }}{{ b }}{% endwith %}",
    "{% block x %}a{{ s }}{% endblock %}b",
    "{% set q = 1 %}{% block x %}{{ q }}{% endblock %}",
    "{% block x %}{% set q = 1 %}{% endblock %}{{ q is defined }}",
    "{% for x in l %}{% block b %}{{ x }}{% endblock %}{% endfor %}",
    "{% generation %}abc{{ s }}{% endgeneration %}d",
    "{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q is defined }}",
    "{% for x in l %}{%- generation -%} {{ x }} {% endgeneration %}{% endfor %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% if false %}{% include 'x' %}{% endif %}ok",
    "{{ raise_exception('no way') }}",
    "{% if true %}{{ raise_exception('a' ~ 1) }}{% endif %}",
    "{{ raise_exception(5) }}",
    "{{ raise_exception() }}",
    "{{ 'x' if true else raise_exception('never') }}",
    "{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}{{ dict({'a': 1}, a=2) }}{{ dict() }}",
    "{{ dict([1]) }}",
    "{{ dict(5) }}",
    "{{ dict.fromkeys(['a', 'b'], 1) }}",
    "{{ dict.nope }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    "{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{{ strftime_now('%d %b %Y|%B %A %a|%H:%M:%S|%j|%I %p|%y %m|%U %W %u %w|%c|%x|%X|%F %T %R %D|%e|%%|%-d %-m %-H|%f|%Z|%z|%G %V') }}",
    "{{ strftime_now('plain é') }}",
    "{{ strftime_now() }}",
    "{{ lipsum is defined }}{{ range is defined }}{{ nope is defined }}",
    "{{ range is callable }}",
    "{{ {'pop': 1}.pop }}|{{ {'pop': 1}['pop'] }}|{{ {'get': 1}.get is callable }}|{{ {'get': 1}['get'] }}",
    "{% set ns = namespace() %}{% macro m(x) %}{% macro n() %}{{ x }}{% endmacro %}{% set ns.f = n %}{% endmacro %}{{ m(1) }}{% macro k(z) %}{{ ns.f() }}{{ z }}{% endmacro %}{{ k(5) }}{{ ns.f() }}",
    "{% set ns = namespace() %}{% for x in l %}{% macro n() %}{{ x }}{{ i }}{% endmacro %}{% if loop.first %}{% set ns.f = n %}{% endif %}{{ ns.f() }}{% endfor %}",
    "{% macro outer() %}{% set v = 1 %}{% macro inner() %}{{ v }}{% endmacro %}{{ inner() }}{% set v = 2 %}{{ inner() }}{% endmacro %}{{ outer() }}",
    "{% macro w(n) %}{% for x in range(n) %}{{ w(x) }}{{ x }}{% endfor %}{% endmacro %}{{ w(4) }}",
    "{% for x in [1, [2, [3, 4]], 5] recursive %}{% set y = x %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ y }}{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for x in [] recursive %}{% else %}none{{ s }}{% endfor %}",
    "{% for x in [1, 2] recursive %}{{ x }}{% else %}none{% endfor %}",
    "{% macro m(a, b=caller) %}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}{{ varargs|length }}{{ kwargs|length }}{{ caller }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m() %}{% for varargs in [1] %}{{ varargs }}{% endfor %}{% endmacro %}{{ m() }}{{ m(1) }}",
    "{% set l2 = [] %}{% set _ = l2.append(1) %}{{ l2 }}",
    "{% set x = {} %}{% set _ = x.update({'a': 1}) %}",
    "{{ s.upper().lower().title().split(',')[0].strip() }}",
    "{{ (s if i > 5 else u).upper() }}",
    "{{ [1, 2, 3][1:][0] }}",
    "{{ {'a': [1, {'b': 'c'}]}.a[1].b }}",
    "{{ 'a,b'.split(',')|map('upper')|join('+') }}",
    "{{ s|upper|lower|title }}",
    "{{ 5|string + 'x' }}",
    "{{ -5|abs }}",
    "{{ 1 + 2|string }}",
    "{{ 'a' ~ 'b'|upper }}",
    "{{ not true|string }}",
    "{{ 2 * 3|int ** 2 }}",
    "{{ s is string|upper }}",
    "{{ 'x' in 'xyz'|upper }}",
    "{{ people|map(attribute='name')|map('upper')|sort|join(',') }}",
    "{{ people[0].name.upper()[0] }}",
    "{{ a.b.c }}",
    "{{ (a) }}{{ ((1)) }}",
    "{{ '' 'a' '' }}",
    "{{ d.c.x|sum + i }}",
    "{%- for p in people if p.age == 30 -%}\n{{ loop.index }}. {{ p.name }}\n{% endfor -%}\nend",
    "{{ 1 }}\n\n\n{{ 2 }}\n\n",
    "{%set x=1%}{{x}}{%if x%}y{%endif%}",
    "{{ l|length > 2 and l[0] == 3 }}",
    "{{ l | length - 1 }}",
    "{{ (l | length) - 1 }}{{ loop is defined }}",
    "{{ s[:5] + '...' if s|length > 5 else s }}",
    "{{ 'yes' if 'World' in s else 'no' }}",
    "{{ mixed|map('string')|join(',') }}",
    "{{ mixed|select('string')|list }}{{ mixed|select('mapping')|list }}{{ mixed|select('number')|list }}",
    "{{ ['a', 1, 2.5, none, true]|map('tojson')|join(' ') }}",
    "é{{ 'é' }}{% set ü = 5 %}{{ ü }}",
    "{{ 1€ }}",
    "{% set x = 'a\\nb' %}{{ x }}{{ x|length }}",
    '{{ "\\u00e9\\n" }}{{ "\\d" }}',
    "{{ '\\x4' }}",
)
