#!/bin/sh
# sh run.sh                          the release's sweep at full width, on what data_prep.py prepared in data/
# SEEDS="0 1 2 3 4" sh run.sh        the paper's five seeds
# sh run.sh quick                    small nets on convection that is simulated here: about ten minutes on two CPU
#                                    cores, no download; and on data/ocean, if there is any
# sh run.sh evidence                 what are the layers worth? Nets, frames of reference, augmentation and controls at
#                                    equal terms, five seeds; about 20 core-hours, and every part of it a smaller study
# sh run.sh transfer                 the nets of sh run.sh evidence on convection from another start and at other
#                                    Rayleigh numbers, without training them again; half an hour
# sh run.sh seas                     nets of the Agulhas current on the Mediterranean, prepared as docs/results.md says;
#                                    some hours
# sh run.sh temperatures             velocity, temperature and both: convection and, if it was prepared as
#                                    docs/results.md says, a storm; half an hour
# sh run.sh heat                     nets of every symmetry on heat in a periodic box, where all symmetries are exact;
#                                    some hours
# sh run.sh samples                  how many windows does a net need? As many steps on 49 to 4900 windows of
#                                    convection, five times as long as elsewhere; ten hours
# sh run.sh wide                     four U-Nets of the paper's width and settings on 6000 windows of 64 x 64 points,
#                                    simulated here; five hours
# sh run.sh ablation                 scale nets without one of their parts at a time; an hour
# sh run.sh smoke                    relaxed, strict and free nets on smoke plumes that break a symmetry by a dial, on
#                                    convection and, if there is data/ocean, on currents; some hours
# sh run.sh [MODE] --list            prints the runs of all data sets, one command a line, for a scheduler; runs nothing
#
# Finished runs are skipped, killed ones go on. DATA_DIR, RESULTS and PYTHON override data, results and python3.
cd "$(dirname "$0")" || exit 2
mode=full list=
for argument in "$@"; do
    case $argument in
        full | quick | evidence | transfer | seas | temperatures | heat | samples | wide | ablation | smoke) mode=$argument ;;
        --list) list=yes ;;
        *)
            echo "error: usage: sh run.sh [quick | evidence | transfer | seas | temperatures | heat | samples | wide | ablation | smoke] [--list], got: $*" >&2
            exit 2
            ;;
    esac
done
data=${DATA_DIR:-data}
results=${RESULTS:-results}
python=${PYTHON:-python3}
failed=0

# one SEED FLAGS: a run, or its line
one() {
    seed=$1
    shift
    if [ "$list" ]; then
        echo "$python run_model.py $* --seed=$seed --data_dir='$data' --results='$results'"
        return
    fi
    "$python" run_model.py "$@" --seed="$seed" --data_dir="$data" --results="$results"
    code=$?
    [ "$code" -gt 128 ] && exit "$code" # interrupted
    [ "$code" -ne 0 ] && failed=2
}

# run FLAGS: one run per seed
run() {
    for seed in ${SEEDS:-0}; do
        one "$seed" "$@"
    done
}

# small DATASET UNET_EPOCHS RESNET_EPOCHS SCALE_EPOCHS: the ten small nets; no slow one comes last, when a core would
# have nothing else to do
common="--input_length=10 --output_length=2 --batch_size=8 --learning_rate=0.003"
settings="$common --decay_rate=0.75"
small() {
    unet="--dataset=$1 --architecture=Unet $settings" resnet="--dataset=$1 --architecture=ResNet $settings"
    decay=
    [ "$1" != RBC ] || decay=--weight_decay=0 # by validation; that for magnitude is far worse without
    # Scale costs more for its width: five levels, or three, of every feature; a channel of rotation is four numbers.
    # On currents neither quarter turns nor eighths are surely better (docs/symmetries.md); quarters cost less.
    run $unet --symmetry=None --width=0.25 --num_epoch="$2"
    run $resnet --symmetry=None --width=0.0625 --num_epoch="$3" $decay
    run $unet --symmetry=UM --width=0.25 --num_epoch="$2"
    run $resnet --symmetry=UM --width=0.0625 --num_epoch="$3"
    run $resnet --symmetry=Mag --width=0.0625 --num_epoch="$3"
    run $resnet --symmetry=Rot --rotation_order=4 --width=0.03125 --num_epoch="$3"
    run $resnet --symmetry=Scale --width=0.03125 --num_scales=3 --num_epoch="$4"
    run $unet --symmetry=Scale --width=0.125 --num_epoch="$4"
    run $unet --symmetry=Mag --width=0.25 --num_epoch="$2"
    run $unet --symmetry=Rot --rotation_order=4 --width=0.25 --num_epoch="$2"
}

# study DATASET ARCHITECTURE WIDTH SCALE_WIDTH: what are the layers worth? Question by question, each with its rivals,
# and seed by seed, so that whatever is finished is a smaller study. Nets are trained until eight epochs were no better,
# on roll-outs as long as the test's, with the learning rate and weight decay that seeds 0 to 2 were best with on
# validation, by their mean: one seed chooses badly, and the paper's decay does not suit every net
# (docs/what-the-layers-are-worth.md).
terms="--input_length=10 --output_length=2 --batch_size=8 --valid_length=10 --patience=8 --num_epoch=80 --decay_rate=0.95"
study() {
    for question in UM Mag Rot Scale; do
        for seed in ${SEEDS:-0 1 2 3 4}; do
            for net in $(nets $question "$3" "$4"); do
                rated "$seed" --dataset="$1" --architecture="$2" $(echo "$net" | tr '/' ' ') $terms --scale_windows=0
            done
        done
    done
}

# rated SEED FLAGS: a run with each of the settings to try (learning rate/weight decay) if the seed is one that tries
# them, else with the best of these; other modes than evidence and seas have their own
trying="0 1 2" trials="0.003/0.0004 0.001/0.0004 0.01/0.0004 0.003/0 0.001/0"
rated() {
    case " $trying " in
        *" $1 "*) ;;
        *)
            one "$@" --learning_rate=best
            return
            ;;
    esac
    for settings in $trials; do
        one "$@" --learning_rate="${settings%/*}" --weight_decay="${settings#*/}"
    done
}

# seas: nets trained on the Agulhas current and tested on the Mediterranean, each with and without a frame of reference;
# and, if it was prepared for that, nets trained there, beside the finished ones of the Agulhas current
seas() {
    for seed in ${SEEDS:-0 1 2}; do
        for symmetry in None UM Mag Rot; do
            for frame in "" --frame=UM,Mag; do
                rated "$seed" --dataset=Ocean --architecture=Unet --symmetry=$symmetry --width=0.25 $frame $terms --test_sets=domain
            done
        done
    done
    [ -f "$data/mediterranean/meta.json" ] || return
    for seed in ${SEEDS:-0 1 2}; do
        for symmetry in None UM; do
            rated "$seed" --dataset=mediterranean --architecture=Unet --symmetry=$symmetry --width=0.25 $terms --test_sets=test
        done
    done
    elsewhere mediterranean test "$results"/Ocean_*/ # those that were finished before: call it again
}

# nets QUESTION WIDTH SCALE_WIDTH: the symmetric net, and what a reviewer would have instead: a plain net so wide that a
# step of training takes as long as of that for uniform motion, too. Those of rotation of 4, 8 and 16 directions take
# equally long.
nets() {
    case $1 in
        UM) echo "--symmetry=None/--width=$2 --symmetry=UM/--width=$2 --symmetry=None/--frame=UM/--width=$2" \
            "--symmetry=UM/--variant=free/--width=$2 --symmetry=None/--variant=residual/--width=$2" \
            "--symmetry=None/--variant=replicate/--width=$2 --symmetry=None/--variant=he/--width=$2" \
            "--symmetry=None/--augment=UM/--width=$2" \
            "--symmetry=UM/--augment=UM/--width=$2 --symmetry=None/--width=0.5" ;;
        Mag) echo "--symmetry=Mag/--width=$2 --symmetry=None/--frame=Mag/--width=$2 --symmetry=Mag/--variant=free/--width=$2" \
            "--symmetry=None/--frame=UM,Mag/--width=$2 --symmetry=UM/--frame=Mag/--width=$2" \
            "--symmetry=None/--augment=Mag/--width=$2 --symmetry=Mag/--augment=Mag/--width=$2" ;;
        Rot) echo "--symmetry=Rot/--rotation_order=4/--width=$2" \
            "--symmetry=Rot/--width=0.125 --symmetry=Rot/--rotation_order=16/--width=0.0625" \
            "--symmetry=Rot/--rotation_order=4/--variant=normless/--width=$2" \
            "--symmetry=None/--augment=Rot/--width=$2 --symmetry=None/--frame=Rot/--width=$2" ;;
        Scale) echo "--symmetry=None/--width=$3 --symmetry=Scale/--width=$3" ;;
    esac
}

# temperatures: does the one field help to forecast the other, and a symmetry either? With the learning rate and weight
# decay that suit most nets of the study. A storm of 64 frames gives two steps an epoch.
temperatures() {
    for flow in rbc storm; do
        of_flow="$terms --test_sets=UM,Mag"
        [ $flow = rbc ] || of_flow="$of_flow --input_length=2 --num_epoch=800 --patience=80 --decay_rate=0.995"
        for seed in ${SEEDS:-0 1 2}; do
            for fields in vector scalar both; do
                [ $flow = rbc ] || [ -f "$data/${flow}_$fields/meta.json" ] || continue
                for symmetry in None UM Mag; do
                    one "$seed" --dataset=${flow}_$fields --architecture=Unet --symmetry=$symmetry --width=0.25 $of_flow \
                        --learning_rate=0.003 --weight_decay=0
                done
            done
        done
    done
}

# heat: a net of every symmetry, each with 16 numbers at a point, that of scale with 8 on each of its three levels; the
# second paper's, with norms; a plain net with 32, and one of rotation with 64. All know that the box is periodic but
# the first.
of_heat="--dataset=heat --architecture=ConvNet --learning_rate=0.003 --input_length=4 --output_length=2 --batch_size=8 --valid_length=10 --patience=20 --num_epoch=60 --decay_rate=0.9"
heat() {
    run $of_heat --symmetry=None --width=0.125
    for net in None/--width=0.125 UM/--width=0.125 Mag/--width=0.125 Rot/--rotation_order=4/--width=0.0625 \
        Scale/--num_scales=3/--width=0.25 None/--variant=norm/--width=0.125 \
        Rot/--rotation_order=4/--variant=norm/--width=0.0625 None/--width=0.25 Rot/--rotation_order=4/--width=0.25; do
        run $of_heat --padding=circular --symmetry=$(echo $net | tr '/' ' ')
    done
}

# samples: nets of motion and of rotation and their rivals, in as many steps on every number of windows
of_samples="--input_length=10 --output_length=2 --batch_size=8 --valid_length=10 --patience=4 --num_epoch=16 --decay_rate=0.8 --test_sets=UM,Rot"
samples() {
    for seed in ${SEEDS:-0 1 2}; do
        for fraction in 1 0.1 0.01 0.03 0.3; do
            for net in None UM None/--frame=UM None/--augment=UM Rot/--rotation_order=4 None/--augment=Rot; do
                rated "$seed" --dataset=RBC --architecture=Unet --symmetry=$(echo $net | tr '/' ' ') --width=0.25 \
                    --train_fraction=$fraction $of_samples
            done
        done
    done
}

# wide: the paper's width, windows and settings, but epochs that two cores can do; the longest run first. Without decay:
# docs/what-the-layers-are-worth.md says why
of_wide="--dataset=RBC --architecture=Unet --output_length=4 --learning_rate=0.001 --num_epoch=6"
wide() {
    for net in UM None None/--frame=UM None/--weight_decay=0; do
        run $of_wide --symmetry=$(echo $net | tr '/' ' ')
    done
}

rot="--symmetry=Rot --rotation_order=4"
relaxed=--relaxed=10 # of .1, 1 and 10 the best on validation at level 4 of the dials

# dials: rotation nets on four plumes, from below, right, above and left, whose buoyancies differ the more, the higher
# the level, after the second paper's Figure 4: one frame to read; tested on later frames and on plumes that no net has
# seen. Learning rates are those of the best validation at level 4. As many channels in the plain net as in the others;
# the paper's nets have norms ("norm"). Gains that do not decay say what the data ask of them. Every second level first,
# then those between. Seeds after the first: the nets that claims are about, at the first, a middle and the last level.
of_dials="--test_sets=Rot,domain --architecture=ConvNet --input_length=1 --output_length=6 --batch_size=8 --valid_length=10 --patience=20 --num_epoch=120 --decay_rate=0.96"
dials() {
    for seed in ${SEEDS:-0 1 2 3 4}; do
        levels="4 0 9"
        [ "$seed" -gt 0 ] || levels="$levels 2 7 1 6 3 8 5"
        for level in $levels; do
            for way in --symmetry=None "--symmetry=None --variant=norm" "$rot" "$rot $relaxed" "$rot --relaxed=0 --deviation=free" \
                "$rot --relaxed=0" "$rot --relaxed=1 --deviation=free" "$rot --variant=norm" "$rot --variant=RSteer" "$rot --variant=Lift"; do
                case "$seed $level $way" in
                    0\ 4*) rates="0.003 0.001" ;;
                    [1-9]*Rot*--variant=* | [1-9]*--relaxed=0) continue ;;
                    *free | *RSteer) rates=0.001 ;; # their best at level 4
                    *) rates=0.003 ;;
                esac
                case $way in *None*) width=0.125 ;; *) width=0.0625 ;; esac
                for rate in $rates; do
                    one "$seed" --dataset=smoke_levels_$level $way --width=$width $of_dials --learning_rate=$rate
                done
            done
            [ "$seed $level" = "0 4" ] || continue
            for way in --relaxed=0.1 --relaxed=1; do
                one "$seed" --dataset=smoke_levels_4 $rot $way --width=0.0625 $of_dials --learning_rate=0.003
            done
        done
    done
}

# plumes: strict, relaxed, free and plain nets on the second paper's three sets, tested on later frames and on plumes
# that no net has seen; with the learning rate that seed 0 was best with on validation.
of_plumes="--architecture=ConvNet --input_length=10 --output_length=2 --batch_size=8 --valid_length=10 --patience=6 --num_epoch=25 --decay_rate=0.9"
plumes() {
    for seed in ${SEEDS:-0 1 2}; do
        for net in rotation/Rot/--rotation_order=4/--width=0.0625 translation/None/--width=0.125 scale/Scale/--num_scales=3/--width=0.125; do
            net=$(echo "$net" | tr '/' ' ')
            set -- $net
            dataset=smoke_$1 symmetry=$2
            shift 2
            for way in "" $relaxed "--relaxed=0 --deviation=free"; do
                [ "$symmetry $way" = "None --relaxed=0 --deviation=free" ] && way=--variant=RPP
                rated "$seed" --dataset=$dataset --symmetry=$symmetry "$@" $way $of_plumes --test_sets=domain
            done
            for way in "" --variant=norm; do
                [ "$symmetry $way" = "None " ] ||
                    rated "$seed" --dataset=$dataset --symmetry=None --width=0.125 $way $of_plumes --test_sets=domain
            done
        done
    done
}

# walls DATASET TEST_SETS: strict, relaxed and plain nets where walls and gravity, or land, break every symmetry; terms
# as of plumes
walls() {
    for seed in ${SEEDS:-0 1 2}; do
        for net in None/--width=0.125 UM/--width=0.125 Mag/--width=0.125 Rot/--rotation_order=4/--width=0.0625; do
            for way in "" $relaxed; do
                [ "${net%%/*}" = None ] && [ "$way" ] ||
                    rated "$seed" --dataset="$1" --symmetry=$(echo "$net" | tr '/' ' ') $way $of_plumes --test_sets="$2"
            done
        done
    done
}

# elsewhere DATASET TEST_SET FOLDERS: scores the finished nets in these folders on that data set, unless it is done
elsewhere() {
    dataset=$1 test_set=$2
    shift 2
    for folder; do
        folder=${folder%/}
        output=$results/${dataset}_${folder##*/}
        [ -f "$folder/metrics.json" ] && [ ! -e "$output" ] || continue
        mkdir -p "$results"
        echo "$python run_model.py --evaluate='$folder' --output='$output' --dataset=$dataset --test_sets=$test_set --data_dir='$data'"
    done
}

# prepare NAME ARGUMENTS: the data set of that name, unless it is there
prepare() {
    name=$1
    shift
    [ "$list" ] || [ -f "$data/$name/meta.json" ] || "$python" data_prep.py "$@" --data_dir "$data" || exit
}

flow="rbc --simulate small --stride 2 --tile 32 --splits 1050 105 105"
if [ "$mode" != full ]; then
    ocean=$data
    results=${RESULTS:-results}/$mode
    if [ "$mode" = smoke ]; then
        data=$data/smoke
        for level in 0 1 2 3 4 5 6 7 8 9; do
            prepare smoke_levels_$level smoke --set levels --level $level --fields vector
        done
        for set in translation rotation scale; do
            prepare smoke_$set smoke --set $set --fields vector
        done
        data=$ocean/quick
        prepare rbc $flow
    elif [ "$mode" = heat ]; then
        prepare heat heat
    elif [ "$mode" = samples ]; then
        data=$data/samples
        prepare rbc rbc --simulate small --frames 900 --stride 2 --tile 32 --splits 4900 105 105
    elif [ "$mode" = wide ]; then
        data=$data/wide
        prepare rbc rbc --simulate medium --frames 1600
    elif [ "$mode" = temperatures ]; then
        data=$data/temperatures
        for fields in vector scalar "vector scalar"; do
            name=rbc_$(echo "$fields" | sed 's/.* .*/both/')
            prepare "$name" $flow --fields $fields --name "$name"
        done
    elif [ "$mode" = seas ]; then
        data=$data/seas
        if [ ! "$list" ] && [ ! -f "$data/ocean/meta.json" ]; then
            echo "error: no $data/ocean: docs/results.md has the command that prepares it" >&2
            exit 2
        fi
    else
        data=$data/quick
        if [ "$mode$list" = transfer ] && ! ls "${results%/*}"/evidence/*/metrics.json >/dev/null 2>&1; then
            echo "error: no finished run in ${results%/*}/evidence: sh run.sh evidence makes them" >&2
            exit 2
        fi
        prepare rbc $flow
        if [ "$mode" = transfer ]; then
            prepare rbc_seed $flow --name rbc_seed --test_ra 1e7
            for ra in 3e6 1e8; do
                prepare rbc_ra$ra $flow --name rbc_ra$ra --test_ra $ra
                prepare rbc_ra${ra}_cell $flow --name rbc_ra${ra}_cell --test_ra $ra --test_units cell
            done
        fi
    fi
    if [ ! "$list" ]; then
        # Nets this small do not fill two cores: two runs at a time, of one thread each.
        ended=$(mktemp) && trap 'rm -f "$ended"' EXIT
        total=$(sh run.sh "$mode" --list | wc -l) start=$(date +%s) OMP_NUM_THREADS=1
        export ended total start OMP_NUM_THREADS
        [ "$total" -eq 0 ] || sh run.sh "$mode" --list | tr '\n' '\0' | xargs -0 -n 1 -P 2 sh -c '
            eval "$0"
            code=$?
            echo >>"$ended"
            count=$(wc -l <"$ended")
            left=$((($(date +%s) - start) * (total - count) / count / 60))
            echo "== $count of $total runs done, about $left minutes left"
            exit $code' || failed=2
    elif [ "$mode" = quick ]; then
        small RBC 4 5 2
    elif [ "$mode" = ablation ]; then
        settings="$settings --scale_windows=0"
        for option in --scale_interaction=1 --variant=one --variant=largest --variant=space --variant=release \
            --variant=increment --variant=drift --variant=next-frame "--num_scales=1 --scale_interaction=1"; do
            run --dataset=RBC --architecture=Unet --symmetry=Scale $option --width=0.125 --num_epoch=6 $settings
        done
        for symmetry in None Scale; do # trained on longer roll-outs
            run --dataset=RBC --architecture=Unet --symmetry=$symmetry --width=0.125 --num_epoch=6 $settings --output_length=4
        done
    elif [ "$mode" = smoke ]; then
        data=$ocean/smoke
        dials
        trying=0 trials="0.003/0.0004 0.001/0.0004"
        plumes
        data=$ocean/quick
        walls RBC UM,Mag,Rot
        data=$ocean
        [ ! -f "$data/ocean/meta.json" ] || walls Ocean UM,Mag,Rot,domain
    elif [ "$mode" = seas ]; then
        seas
    elif [ "$mode" = heat ]; then
        heat
    elif [ "$mode" = temperatures ]; then
        temperatures
    elif [ "$mode" = wide ]; then
        wide
    elif [ "$mode" = samples ]; then
        trying=0 trials="0.003/0 0.001/0.0004"
        samples
    elif [ "$mode" = transfer ]; then
        for dataset in rbc_seed rbc_ra3e6 rbc_ra1e8 rbc_ra3e6_cell rbc_ra1e8_cell; do
            elsewhere $dataset domain "${results%/*}"/evidence/RBC_*/
        done
    else
        study RBC Unet 0.25 0.125
    fi
    data=$ocean
    case $mode in quick | evidence) ;; *) ocean= ;; esac # which have currents, too
    if [ "$list" ] && [ "$ocean" ] && [ -f "$data/ocean/meta.json" ]; then
        settings="$common --decay_rate=0.85"
        if [ "$mode" = evidence ]; then
            study Ocean Unet 0.25 0.125
        else
            small Ocean 24 24 24
        fi
    fi
else
    if [ "$list" ] || [ -f "$data/rbc/meta.json" ]; then
        run --dataset=RBC --architecture=ResNet --symmetry=None --output_length=3 --learning_rate=0.001
        run --dataset=RBC --architecture=Unet --symmetry=None --output_length=4 --learning_rate=0.001
        run --dataset=RBC --architecture=ResNet --symmetry=UM --output_length=3 --learning_rate=0.001
        run --dataset=RBC --architecture=Unet --symmetry=UM --output_length=4 --learning_rate=0.001
        run --dataset=RBC --architecture=ResNet --symmetry=Mag --output_length=3 --learning_rate=0.005
        run --dataset=RBC --architecture=Unet --symmetry=Mag --output_length=4 --learning_rate=0.005
        run --dataset=RBC --architecture=ResNet --symmetry=Rot --output_length=3 --learning_rate=0.001
        run --dataset=RBC --architecture=Unet --symmetry=Rot --output_length=4 --learning_rate=0.001
        run --dataset=RBC --architecture=ResNet --symmetry=Scale --output_length=3 --learning_rate=0.0001
        run --dataset=RBC --architecture=Unet --symmetry=Scale --output_length=4 --learning_rate=0.0001
    else
        echo "no $data/rbc: python data_prep.py rbc --raw rbc_data.pt, or --simulate medium, prepares it"
    fi
    if [ "$list" ] || [ -f "$data/ocean/meta.json" ]; then
        run --dataset=Ocean --architecture=ResNet --symmetry=None --output_length=4 --learning_rate=0.001 --input_length=24 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=None --output_length=5 --learning_rate=0.001 --input_length=21 --batch_size=16 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=UM --output_length=5 --learning_rate=0.001 --input_length=24 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=UM --output_length=5 --learning_rate=0.001 --input_length=24 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=Mag --output_length=5 --learning_rate=0.001 --input_length=21 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=Mag --output_length=6 --learning_rate=0.001 --input_length=21 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=Rot --output_length=3 --learning_rate=0.001 --input_length=21 --batch_size=16 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=Rot --output_length=3 --learning_rate=0.001 --input_length=21 --batch_size=64 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=Scale --output_length=3 --learning_rate=0.0001 --input_length=26 --batch_size=32 --decay_rate=0.9 --kernel_size=5
        run --dataset=Ocean --architecture=Unet --symmetry=Scale --output_length=3 --learning_rate=0.0001 --input_length=26 --batch_size=16 --decay_rate=0.9 --kernel_size=5
    else
        echo "no $data/ocean: python data_prep.py ocean --train FILES prepares it; --print_download says how to get files"
    fi
fi

[ "$list" ] && exit
"$python" -m evaluation.report "$results" || failed=2
exit "$failed"
