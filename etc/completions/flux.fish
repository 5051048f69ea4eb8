# Completion of flux(1) for fish. What there is to complete is asked of the programs themselves.

function __flux_commands
    flux --help 2>/dev/null | string match -rg '^   ([a-zA-Z][a-zA-Z0-9-]* .*)' | string replace -r ' +' \t
end

function __flux_options
    set -l words (commandline -opc)
    flux $words[2] --help 2>/dev/null </dev/null | string match -rg '(--[a-z0-9-]+)'
end

complete -c flux -n __fish_use_subcommand -f -a '(__flux_commands)'
complete -c flux -n 'not __fish_use_subcommand; and string match -q -- "-*" (commandline -ct)' -f -a '(__flux_options)'
