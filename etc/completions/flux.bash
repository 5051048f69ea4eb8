# Completion of flux(1) for bash. What there is to complete is asked of the programs themselves.

_flux_commands() { flux --help 2>/dev/null | sed -n 's/^   \([a-zA-Z][a-zA-Z0-9-]*\) .*/\1/p'; }

# Options and sub-commands of `flux WORDS`.
_flux_words() {
    "$@" --help 2>/dev/null </dev/null | sed -n \
        -e 's/^ *\(-[a-zA-Z]\), \(--[a-z0-9-]*\).*/\1\n\2/p' \
        -e 's/^ *\(--[a-z0-9-]*\).*/\1/p' \
        -e '/ommands:$/,/^$/s/^  \([a-z][a-z0-9-]*\) .*/\1/p'
}

_flux() {
    local word=${COMP_WORDS[COMP_CWORD]} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words=$(_flux_commands)
    elif [ "$COMP_CWORD" -gt 2 ] && [[ ${COMP_WORDS[2]} == [a-z]* ]] && [[ $word == -* ]]; then
        words=$(_flux_words flux "${COMP_WORDS[1]}" "${COMP_WORDS[2]}")
    else
        words=$(_flux_words flux "${COMP_WORDS[1]}")
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -o default -F _flux flux
